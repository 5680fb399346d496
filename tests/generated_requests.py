"""Requests that schemathesis makes from the vendor's documents, against the backup server on a real socket.

A program, not a test: `python tests/generated_requests.py --versions v8`. It prints how many operations the
server has, how many requests were sent and what is not as documented, and ends with status 1 if anything is.
Knows the backup server, the vendor's documents and schemathesis. Must not know the SDK.
"""

import argparse
import contextlib
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import requests
import schemathesis
from harness.contract import vendors_document
from schemathesis.cli import schemathesis as command

from aiovbo.testing import BackupServer, World

Json = dict[str, Any]

UNKNOWN = str(UUID(int=4, version=4))
METHODS = ("get", "post", "put", "delete")
NOT_SERVED = (404, 405)
SECONDS = 30
"""After which a request counts as hanging."""
CONFIGURATION = """
# The documents do not say whether an empty or repeated value, a null or an unknown property is rejected.
[checks]
negative_data_rejection.enabled = false
missing_required_header.enabled = false
# A session that has been stopped cannot be stopped again, which is a 400 before v8.
[[operations]]
include-path-regex = "/Stop$"
checks.positive_data_acceptance.enabled = false
"""
TIME = {"type": "string", "format": "date-time"}
BOUNDS: dict[str, Json] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 10_000},
    "offset": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    "timeoutSeconds": {"type": "integer", "minimum": 0, "maximum": 1},
    "from": {"type": "string", "enum": ["latest"]},
    **{f"{name}Time{end}": TIME for name in ("start", "end") for end in ("From", "To")},
}
"""What the documents state of parameters in prose only."""


class Visitor:
    """A plain client of one server."""

    def __init__(self, server: BackupServer, version: str) -> None:
        self._server = server
        self._version = version
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = server.ca_file

    def token(self) -> str:
        """A new access token."""
        form = {
            "grant_type": "password",
            "username": self._server.username,
            "password": self._server.password,
        }
        form["disable_antiforgery_token"] = "true"
        url = f"{self._server.url}/{self._version}/token"
        return str(self._http.post(url, data=form, timeout=SECONDS).json()["access_token"])

    def ids(self, path: str, count: int = 3) -> list[str]:
        """The first IDs of a list."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        url = f"{self._server.url}/{self._version}/{path}"
        body = self._http.get(url, headers=headers, timeout=SECONDS).json()
        return [str(one["id"]) for one in (body if isinstance(body, list) else body["results"])][:count]

    def has(self, method: str, path: str) -> bool:
        """Whether the server has an operation, which it looks up before it asks for a token."""
        url = self._server.url + re.sub(r"\{\w+\}", UNKNOWN, path)
        return self._http.request(method, url, timeout=SECONDS).status_code not in NOT_SERVED


def served_part(document: Json, visitor: Visitor) -> Json:
    """The operations of a document that the server has, with values of parameters that it knows."""
    sessions = visitor.ids("RestoreSessions")
    known = {
        "restoreSessionId": sessions,
        "eventId": [key for one in sessions for key in visitor.ids(f"RestoreSessions/{one}/Events", 2)],
        "organizationId": visitor.ids("Organizations"),
        "jobId": visitor.ids("Jobs"),
    }
    paths: Json = {}
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods and visitor.has(method, path):
                paths.setdefault(path, {})[method] = methods[method]
    parameters = [
        one for methods in paths.values() for each in methods.values() for one in each.get("parameters", [])
    ]
    for one in [*parameters, *document["components"].get("parameters", {}).values()]:
        name = one.get("name")
        if one.get("in") == "path":
            one["schema"] = {"type": "string", "format": "uuid", "enum": [*known[name], UNKNOWN]}
        elif name in known:
            one["example"] = known[name][0]
        elif name in BOUNDS and one["schema"].get("format") != "date-time":
            one["schema"] = BOUNDS[name]
    return {**document, "paths": paths}


def run(version: str, examples: int, seed: int) -> bool:
    """Whether all that one version's server responded is as documented; what is not is printed."""
    document = vendors_document(version)
    if document is None:
        print(
            f"{version}: skipped: the vendor's document is not part of the project; AIOVBO_OPENAPI=<folder>"
        )
        return True
    server = BackupServer(World("generated", sessions=12, speed=0), version=version)  # type: ignore[arg-type]  # one of its own
    with server.run_in_thread(), TemporaryDirectory() as folder:
        visitor = Visitor(server, version)
        every = sum(method in METHODS for methods in document["paths"].values() for method in methods)
        part = served_part(document, visitor)
        served = sum(map(len, part["paths"].values()))
        print(f"{version}: the server has {served} of the document's {every} operations", flush=True)
        file = Path(folder) / "document.json"
        file.write_text(json.dumps(part))
        configuration = Path(folder) / "schemathesis.toml"
        configuration.write_text(CONFIGURATION)
        # A variable for another authority would count more than the option.
        os.environ["REQUESTS_CA_BUNDLE"] = server.ca_file

        @schemathesis.auth(refresh_interval=None)
        class _Login:
            """A token for each request, because some end it."""

            def get(self, _case: Any, _context: Any) -> str:
                return visitor.token()

            def set(self, case: Any, data: str, _context: Any) -> None:
                case.headers["Authorization"] = f"Bearer {data}"

        server.requests.clear()
        options = {
            "--url": server.url,
            "--tls-verify": server.ca_file,
            "--request-timeout": str(SECONDS),
            "--max-examples": str(examples),
            "--seed": str(seed),
        }
        words = [one for pair in options.items() for one in pair]
        arguments = ["--config-file", str(configuration), "run", str(file), "--continue-on-failure", *words]
        # It keeps what it found in the current folder.
        with contextlib.chdir(folder):
            is_passed = not _status_of(arguments)
        schemathesis.auths.unregister()
        statuses = Counter(request.status for request in server.requests)
    counts = ", ".join(
        f"{count} {status or 'without a response'}" for status, count in sorted(statuses.items(), key=str)
    )
    print(f"{version}: {len(server.requests)} requests: {counts}", flush=True)
    return is_passed and not any(status is None or status >= 500 for status in statuses)


def _status_of(arguments: list[str]) -> int:
    try:
        return int(command.main(args=arguments, standalone_mode=False) or 0)
    except SystemExit as end:
        return int(end.code or 0)


def main() -> None:
    """Run the versions that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", nargs="+", default=["v6", "v7", "v8"])
    parser.add_argument("--examples", type=int, default=50, help="requests per operation and phase")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    results = [run(version, given.examples, given.seed) for version in given.versions]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
