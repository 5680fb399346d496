"""No exception of the HTTP library, of TLS or of the operating system reaches the caller as it is."""

import asyncio
import errno
import ssl
import zlib
from collections.abc import Iterator
from typing import get_args

import aiohttp
import pytest
from aiohttp import http_exceptions
from hypothesis import given, settings
from hypothesis import strategies as st

from aiovbo import TLS
from aiovbo._transport.error_mapping import map_aiohttp_error
from aiovbo._transport.tls import ServerContext
from aiovbo.errors import Phase, ServerError

CONTEXT = ServerContext(TLS(insecure=True))
SECRET = "Bearer s3cret"
OTHERS = (
    EOFError,
    MemoryError,
    ValueError,
    AssertionError,
    RuntimeError,
    RecursionError,
    asyncio.InvalidStateError,
    zlib.error,
)


def below(cls: type[Exception]) -> Iterator[type[Exception]]:
    """The class, and every class that is derived from it in those libraries."""
    yield cls
    for one in cls.__subclasses__():
        if one.__module__.partition(".")[0] in {"builtins", "aiohttp", "ssl", "socket", "asyncio"}:
            yield from below(one)


ROOTS = (OSError, aiohttp.ClientError, http_exceptions.HttpProcessingError, *OTHERS)
CLASSES = sorted({cls for root in ROOTS for cls in below(root)}, key=str)


def made(cls: type[Exception], number: int) -> Exception:
    """An error of the class, however it is made, with a text that must not be shown."""
    error = cls.__new__(cls)
    error.args = (number, SECRET)
    if isinstance(error, OSError):
        error.errno, error.strerror = number, "the network failed"
    # What aiohttp's errors are made with, where a property or their text needs it.
    key = aiohttp.client_reqrep.ConnectionKey(
        "vbo", 4443, is_ssl=True, ssl=CONTEXT, proxy=None, proxy_auth=None, proxy_headers_hash=None
    )
    cause = OSError(number, "the network failed")
    for name, value in {
        "_conn_key": key,
        "_os_error": cause,
        "_certificate_error": ssl.SSLCertVerificationError(1, "x"),
        "message": f"Bad header: '{SECRET}'",
        "status": 400,
        "headers": None,
        "expected": b"",
        "got": b"",
    }.items():
        try:
            setattr(error, name, value)
        except AttributeError:
            continue
    return error


def raised(error: Exception) -> Exception:
    """The same, as code outside the SDK raised it."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
@given(number=st.sampled_from(sorted(errno.errorcode)), phase=st.sampled_from(get_args(Phase)))
@settings(max_examples=10, deadline=None, database=None)
def test_every_error_of_the_transport_becomes_one_of_the_sdk(
    cls: type[Exception], number: int, phase: Phase
) -> None:
    """Whatever its number is, and however far the request came; and its text shows no secret."""
    error = map_aiohttp_error(raised(made(cls, number)), phase, CONTEXT)
    assert isinstance(error, ServerError)
    assert "s3cret" not in str(error)
