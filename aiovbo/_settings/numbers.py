"""Checks of the numbers that are given as settings: booleans, nan and endless ones are none."""

from datetime import timedelta

from aiovbo.errors import ConfigError

LONGEST = timedelta(days=36_525)
"""A hundred years: the longest time that a setting may be."""

_MOST = 2**63


def check_seconds(name: str, value: object, *, may_be_zero: bool = False) -> None:
    """Nothing where a setting is a number of seconds.

    Raises: ConfigError where it is not, or is negative or endless.
    """
    seconds = value if isinstance(value, int | float) and not isinstance(value, bool) else -1
    if not 0 <= seconds <= LONGEST.total_seconds() or not (seconds or may_be_zero):
        above = "" if may_be_zero else " above 0"
        message = f"{name} is a number of seconds{above}, not {shown(value)}"
        raise ConfigError(message)


def check_count(name: str, value: object, least: int) -> None:
    """Nothing where a setting is a whole number of at least `least`.

    Raises: ConfigError where it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _MOST:
        message = f"{name} is a whole number of at least {least}, not {shown(value)}"
        raise ConfigError(message)


def check_interval(name: str, value: object, *, may_be_zero: bool = False) -> None:
    """Nothing where a setting is a timedelta.

    Raises: ConfigError where it is not, or is negative or longer than a hundred years.
    """
    least = timedelta() if may_be_zero else timedelta.resolution
    if not isinstance(value, timedelta) or not least <= value <= LONGEST:
        above = "not below 0" if may_be_zero else "above 0"
        message = f"{name} is a timedelta {above}, and of a hundred years at most, not {shown(value)}"
        raise ConfigError(message)


def shown(value: object) -> str:
    """A value in a message: Python has no text for numbers of thousands of digits."""
    if isinstance(value, int) and not -_MOST < value < _MOST:
        return f"a number of {value.bit_length()} bits"
    return repr(value)
