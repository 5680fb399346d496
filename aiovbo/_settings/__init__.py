"""Settings that users give: credentials, servers, limits.

Also the methods of the objects that they give: clocks, observers, token stores, transports. Validates each
value when it is given. May use `errors` only; must not do I/O and must not know how requests are sent.
"""
