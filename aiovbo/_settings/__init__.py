"""Settings that users give: credentials, servers, limits, the clock, and the events that observers receive.

Validates each value when it is given. May use `errors` only; must not do I/O and must not know HTTP.
"""
