"""The commands `pin` and `schema`, which help to write an inventory.

`pin` prints a certificate and the matching line of an inventory. It verifies nothing.
"""

import json
import sys

from rich.text import Text

from aiovbo import Bearer, Server, ServerError, fetch_certificate
from aiovbo._cli._columns import Unpadded, plain_table
from aiovbo._cli._statuses import OK, status_of
from aiovbo._cli._terminal import console, run, show_failures
from aiovbo.errors import printable


def pin(url: str, proxy: str | None) -> int:
    """A server's certificate, and the line of an inventory that trusts only this certificate."""
    # No login is sent, so the credentials do not matter.
    server = Server(url, Bearer("none"), proxy=proxy, allow_http=True)
    return run(_pin(server))


async def _pin(server: Server) -> int:
    try:
        found = await fetch_certificate(server)
    except ServerError as error:
        show_failures([error], 1, console(stderr=True))
        return status_of(1, 1)
    table = plain_table("", "")
    table.show_header = False
    for title, value in (
        ("subject", found.subject),
        ("issuer", "itself" if found.is_self_signed else found.issuer),
        ("valid", f"{found.not_before:%Y-%m-%d} to {found.not_after:%Y-%m-%d}"),
        ("names", ", ".join(found.names)),
        ("SHA-1", found.thumbprint),
        ("SHA-256", found.pin.removeprefix("sha256:").upper()),
    ):
        table.add_row(Text(title, style="dim"), Text(printable(value, 500)))
    out = console()
    out.print(Unpadded(table), soft_wrap=True)
    out.print(Text(f'\ntls = {{ pin = "{found.pin}" }}'), soft_wrap=True)
    return OK


def schema() -> int:
    """The JSON schema of an inventory, for editors that complete and check fleet.toml."""
    from aiovbo._inventory.schema import inventory_schema  # `pin` does not need it

    sys.stdout.write(json.dumps(inventory_schema(), indent=2) + "\n")
    return OK
