"""Which restore sessions a command is about, by the options of its filter.

Knows words of the API and of the products. Must not know how sessions are requested or shown.
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from aiovbo import (
    ConfigError,
    RestoreSession,
    RestoreSessionEventStatus,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
)
from aiovbo._cli._options import Filter
from aiovbo._cli._rows import Row

_Enumeration = type[
    RestoreSessionState | RestoreSessionResult | RestoreSessionType | RestoreSessionEventStatus
]
_KNOWN: dict[str, _Enumeration] = {
    "state": RestoreSessionState,
    "result": RestoreSessionResult,
    "type": RestoreSessionType,
}
_PRODUCTS = {"exchange": "vex", "onedrive": "veod", "sharepoint": "vesp", "teams": "vet"}
_NEAR = 0.7
"""Similarity of a likely typo to a known word, from 0 to 1."""


def fits(row: Row, filters: Filter, *, by_result: bool = True) -> bool:
    """Whether a session is meant.

    - `by_result`: False where the result that is meant is not the session's.
    """
    session = row.session
    return (
        filters.organization.casefold() in row.organization.casefold()
        and filters.by.casefold() in (session.initiated_by or "").casefold()
        and all(
            is_one_of(_value_of(session, name), texts)
            for name, texts in _wanted(filters).items()
            if by_result or name != "result"
        )
    )


def is_one_of(value: object, texts: list[str]) -> bool:
    """Whether it is what one of the texts means; true for no texts."""
    return not texts or str(value or "").casefold() in map(_canonical, texts)


def _value_of(session: RestoreSession, name: str) -> object:
    return session.outcome if name == "result" else getattr(session, name)


def doubts_of(filters: Filter, results: _Enumeration = RestoreSessionResult) -> Iterator[str]:
    """A sentence for each filter value that is not known; it may belong to a newer API."""
    for name, text in _unknown(filters, results):
        known = ", ".join(one.value for one in _known(results)[name])
        yield f"no {name} is known as {text!r}: there are {known}"


def reject_typos(filters: Filter, results: _Enumeration = RestoreSessionResult) -> None:
    """Reject a filter value that is a likely typo, and not a value of a newer API.

    Raises: ConfigError with what was meant.
    """
    for name, text in _unknown(filters, results):
        if len(several := text.replace(",", " ").split()) > 1:
            meant = " ".join(f"--{name} {one}" for one in several)
            message = f"{text!r} is not a valid {name}; give several as {meant}"
            raise ConfigError(message)
        words = {one.value.casefold(): one.value for one in _known(results)[name]}
        if name == "type":
            # Types are too short to distinguish a new one from a typo.
            words = {product: product.capitalize() for product in _PRODUCTS}
        if near := get_close_matches(text.casefold(), words, 1, _NEAR):
            message = f"no {name} is known as {text!r}: did you mean {words[near[0]]}?"
            raise ConfigError(message)


def _known(
    results: _Enumeration,
) -> dict[
    str,
    Iterable[RestoreSessionState | RestoreSessionResult | RestoreSessionType | RestoreSessionEventStatus],
]:
    return {**_KNOWN, "result": results}


def _unknown(filters: Filter, results: _Enumeration) -> list[tuple[str, str]]:
    """Filter values that are not known, with the name of the filter."""
    return [
        (name, text)
        for name, texts in _wanted(filters).items()
        for text in texts
        if _canonical(text) not in {one.value.casefold() for one in _known(results)[name]}
    ]


def _wanted(filters: Filter) -> dict[str, list[str]]:
    return {"state": filters.state, "result": filters.result, "type": filters.type}


def _canonical(text: str) -> str:
    """The value as the API has it, in lower case: a product's name stands for its type."""
    return _PRODUCTS.get(text.casefold(), text.casefold())
