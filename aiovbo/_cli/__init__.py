"""The command line.

May use every package of the SDK; must not be used by any of them. `_app` lists the commands, each of which is
imported when it is given.
"""
