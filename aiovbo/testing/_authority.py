"""A certificate authority for loopback servers.

Knows certificates and the file that clients trust. Must not know HTTP or the API.
"""

import os
import ssl
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Authority:
    """A certificate authority of its own, with one server certificate that many servers share.

    `ca_file` is what clients trust; `close()`, the end of a `with` block, or the end of the process
    removes it.

    - `names`: further host names and addresses that the certificate is good for.
    - `ca_file`: path of a file that is kept: the first use makes the authority and writes it, with its
          private key in `<ca_file>.key`; later ones read it, so that what trusts it still does. A
          temporary file if not given.

    Raises: ImportError without trustme, which the extra `testing` brings; ValueError for a `ca_file`
            that holds something else; OSError for one that cannot be read or written.
    """

    def __init__(self, *names: str, ca_file: str | None = None) -> None:
        try:
            import trustme  # the optional extra, needed only here
        except ImportError as error:
            message = "a backup server with TLS needs trustme, which the extra 'testing' of aiovbo installs"
            raise ImportError(message, name="trustme") from error
        ca = trustme.CA()
        if ca_file is not None:
            new = ca
            pair = _kept(ca_file, lambda: (new.cert_pem.bytes(), new.private_key_pem.bytes()))
            try:
                ca = trustme.CA.from_pem(*pair)
            except ValueError as error:
                msg = f"{ca_file} and {ca_file}.key do not hold a CA and its key"
                raise ValueError(msg) from error
        leaf = ca.issue_cert(*dict.fromkeys((*_LOOPBACK, *names)))
        self._pem = ca.cert_pem.bytes()
        self._is_kept = ca_file is not None
        self.ca_file: str
        if ca_file is None:
            handle, self.ca_file = tempfile.mkstemp(prefix="aiovbo-ca-", suffix=".pem")
            os.close(handle)
            self._removal = weakref.finalize(self, _remove, self.ca_file)
        else:
            self.ca_file = ca_file
        self.server_context: ssl.SSLContext = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        """What a server speaks TLS with."""
        leaf.configure_cert(self.server_context)  # pyright: ignore[reportUnknownMemberType]  # its type names pyOpenSSL, which is not needed
        self.open()

    def open(self) -> None:
        """Write the CA file again after `close()`, under the same name."""
        if not self._is_kept:
            Path(self.ca_file).write_bytes(self._pem)

    def close(self) -> None:
        """Remove the CA file, unless it is kept; the certificates stay good."""
        if not self._is_kept:
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


def _kept(ca_file: str, make: Callable[[], tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Certificate and key of a file and its neighbour; where there is no file, what is made is written."""
    certificate, key = Path(ca_file), Path(f"{ca_file}.key")
    if certificate.exists():
        return certificate.read_bytes(), key.read_bytes()
    made = make()
    # Only the owner may read the key: what trusts the CA trusts whatever it signs.
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(made[1])
    certificate.write_bytes(made[0])
    return made
