"""A certificate authority for loopback servers.

Knows certificates and the file that clients trust. Must not know HTTP or the API.
"""

import os
import ssl
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Authority:
    """A certificate authority of its own, with one server certificate that many servers share.

    `ca_file` is what clients trust; `close()`, the end of a `with` block, or the end of the process
    removes it.

    - `names`: further host names and addresses that the certificate is good for.

    Raises: ImportError without trustme, which the extra `testing` brings.
    """

    def __init__(self, *names: str) -> None:
        try:
            import trustme  # noqa: PLC0415  # the optional extra, needed only here
        except ImportError as error:
            raise ImportError('the TLS backup server needs trustme: pip install "aiovbo[testing]"') from error
        ca = trustme.CA()
        leaf = ca.issue_cert(*dict.fromkeys((*_LOOPBACK, *names)))
        self._pem = ca.cert_pem.bytes()
        handle, self.ca_file = tempfile.mkstemp(prefix="aiovbo-ca-", suffix=".pem")
        os.close(handle)
        self._removal = weakref.finalize(self, _remove, self.ca_file)
        self.server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        """What a server speaks TLS with."""
        leaf.configure_cert(self.server_context)  # pyright: ignore[reportUnknownMemberType]  # its type names pyOpenSSL, which is not needed
        self.open()

    def open(self) -> None:
        """Write the CA file again after `close()`, under the same name."""
        Path(self.ca_file).write_bytes(self._pem)

    def close(self) -> None:
        """Remove the CA file; the certificates stay good."""
        _remove(self.ca_file)

    def client_context(self) -> ssl.SSLContext:
        """What a client that trusts this authority, and no other, speaks TLS with."""
        return ssl.create_default_context(cadata=self._pem.decode())

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
