"""The command line, in modules that the SDK itself never imports.

Knows nothing of its own: `_app` lists the commands, each of which is imported when it is given.
"""
