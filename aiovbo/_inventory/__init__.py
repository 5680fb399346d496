"""An inventory of servers, from a file or a mapping: reading, secrets, and its JSON schema.

May use `_core`, `_settings` and `errors`; must not send requests.
"""
