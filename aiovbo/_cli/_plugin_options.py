"""The options of `check --format nagios`: the limits above which a figure is a warning, or critical.

Imported for help and completion too, as `_options` is.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Annotated, Any

from attrs import frozen
from cyclopts import Group, Parameter

from aiovbo._cli._options import span
from aiovbo._cli._times import parse_span

_PLUGIN = Group(
    "With --format nagios",
    help="Limits are WARNING,CRITICAL. One number is for both; without a number, that limit does not apply.",
    sort_key=2,
)


@frozen
class Limit:
    """The value beyond which a figure is a warning, and the value beyond which it is critical."""

    warning: float | None
    critical: float | None
    is_minimum: bool = False
    """Whether lower values are worse."""

    def is_exceeded_by(self, value: float, bound: float | None) -> bool:
        """Whether a value lies beyond one of the two bounds."""
        if bound is None:
            return False
        return value < bound if self.is_minimum else value > bound

    def range(self, bound: float | None) -> str:
        """One of the two bounds as monitoring plugins write it."""
        if bound is None:
            return ""
        return f"{bound:.10g}:" if self.is_minimum else f"{bound:.10g}"


def _seconds(text: str) -> float:
    return parse_span(text).total_seconds()


def _limit(
    text: str, default: str, read: Callable[[str], float] = int, *, is_minimum: bool = False
) -> Parameter:
    def convert(_: type, tokens: Iterable[Any]) -> Limit:
        (token,) = tokens
        warning, comma, critical = token.value.partition(",")
        try:
            bounds = [read(part) if part else None for part in (warning, critical if comma else warning)]
        except (ValueError, OverflowError):
            bounds = []
        if not any(bound is not None for bound in bounds):
            message = f"{token.value!r} is not WARNING,CRITICAL, such as {default}"
            raise ValueError(message)
        found = Limit(bounds[0], bounds[-1], is_minimum)
        if found.warning is not None and found.is_exceeded_by(found.warning, found.critical):
            message = f"{token.value!r}: WARNING must be reached before CRITICAL"
            raise ValueError(message)
        return found

    return Parameter(
        help=f"{text}; {default} if not given.",
        group=_PLUGIN,
        converter=convert,
        accepts_keys=False,
        n_tokens=1,
        metavar="WARNING,CRITICAL",
        show_default=False,
    )


@Parameter(name="*")
@frozen(kw_only=True)
class PluginLimits:
    """The limits of the figures of a fleet."""

    window: Annotated[
        timedelta,
        Parameter(
            help="Count restores that failed in this time; 24h if not given.",
            group=_PLUGIN,
            converter=span,
            metavar="SPAN",
            show_default=False,
        ),
    ] = timedelta(days=1)
    """A duration."""
    failed: Annotated[Limit, _limit("More failed restores than this", "0,4")] = Limit(0, 4)
    """A number."""
    long_running: Annotated[Limit, _limit("A restore that runs longer than this", "4h,24h", _seconds)] = (
        Limit(14_400, 86_400)
    )
    """Seconds."""
    unreachable: Annotated[Limit, _limit("More servers that cannot be queried than this", "0,0")] = Limit(
        0, 0
    )
    """A number."""
    certificate: Annotated[
        Limit, _limit("Fewer days than this until a certificate expires", "30,7", is_minimum=True)
    ] = Limit(30, 7, is_minimum=True)
    """Days."""
    clock_skew: Annotated[Limit, _limit("A clock that is off by more than this", "1m,5m", _seconds)] = Limit(
        60, 300
    )
    """Seconds."""
