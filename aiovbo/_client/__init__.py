"""One backup server: its requests with retries, its listings page by page, and the public `Client`.

May use `_auth` and below; must not know that there are other servers.
"""
