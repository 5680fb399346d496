"""The command line, in modules that the SDK itself never imports.

Knows nothing of its own.
"""
