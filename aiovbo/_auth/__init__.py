"""Tokens of one server: login, renewal, and the guard that keeps accounts from being locked.

May use `_transport` and below; must not know resources or fleets.
"""
