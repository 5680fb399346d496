"""The version of this package: that of the next release, until it is released."""

__version__ = "0.2.0.dev0"
