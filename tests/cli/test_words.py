"""Messages of the SDK name options and keys in the command line, in place of Python."""

import ast
import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import tls
from harness.raw import RawServer, vbo_routes

import aiovbo
from aiovbo._cli._app import main
from aiovbo._cli._words import _OUR_WORDS, to_cli_terms
from aiovbo.testing import BackupServer

PYTHON = re.compile(r"\b(TLS|Server|Password|Fleet|Client)\(|\w=(\.\.\.|True|False|'auto')|\bopenssl ")
"""How Python is spoken, and what takes another program where one command of ours would do."""

BY_URL = {
    "": (4, "trust it: --ca-file (in an inventory, tls.ca_file) with its authority, or --pin (in an inv"),
    "--pin nonsense": (2, "is no SHA-256 fingerprint (64 hexadecimal digits). `aiovbo pin URL` shows it."),
    "--ca-file nowhere.pem": (2, "the authorities in 'nowhere.pem' cannot be used"),
    "--url URL --insecure": (2, "Give each --url once (in an inventory, remove one of them"),
    "--url http://vbo1": (2, "use https, or say --allow-http"),
    "--url u:p@vbo1": (2, "give --user, and the variable VBO_PASSWORD"),
    "--url vbo1/v6": (2, "leave out the API version, or give it as api_version in an inventory"),
    "--user=": (2, "the user name is missing, such as 'DOMAIN\\user'"),
}  # fmt: skip
BY_INVENTORY = {
    "[fleet]\nmax_body = 100": (4, "Raise max_body, in [fleet] of an inventory."),
    "[groups.g]\napi_version = 'v8'": (4, "or set api_version = 'auto' in the inventory."),
    "[groups.g]\ntls = { pin = 'nonsense' }": (2, "`aiovbo pin URL` shows it."),
    "[groups.g]\ntls = { client_cert = 'nowhere.pem' }": (2, "nowhere.pem' cannot be used"),
    "[groups.g]\ntls = { client_key = 'nowhere.pem' }": (2, "client_key needs client_cert too"),
}
BY_CERTIFICATE = {
    "wrong_host": "Use a name that stands in the certificate, or --pin (in an inventory, tls.pin)",
    "client_cert_required": "a certificate of ours: tls.client_cert and tls.client_key of an inventory.",
}


@pytest.mark.parametrize("options", BY_URL)
def test_a_server_that_is_given_by_its_address(
    options: str,
    servers: list[BackupServer],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The message names the option that fixes it."""
    status, said = BY_URL[options]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VBO_PASSWORD", servers[0].password)
    given = ["--url", servers[0].url, *(() if "--user" in options else ("--user", "x"))]
    words = [word.replace("URL", servers[0].url) for word in options.split()]
    assert main(["sessions", *given, *words]) == status
    assert said in spoken(capsys.readouterr().err)


@pytest.mark.parametrize("table", BY_INVENTORY)
def test_a_server_of_an_inventory(
    table: str, servers: list[BackupServer], inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the key that fixes it."""
    status, said = BY_INVENTORY[table]
    lines = inventory.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("vbo")]
    if "tls" in table:
        kept = [line for line in kept if not line.startswith("tls")]
    group = ", group = 'g'" if "groups" in table else ""
    server = f"old = {{ url = '{servers[0].url}'{group} }}"
    inventory.write_text("\n".join([*kept, server, table, ""]), encoding="utf-8")
    assert main(["sessions", "--retries", "0"]) == status
    assert said in spoken(capsys.readouterr().err)


@pytest.mark.parametrize("name", BY_CERTIFICATE)
async def test_a_server_whose_certificate_is_the_cause(name: str) -> None:
    """It belongs to another server, or the server requires one of ours."""
    identity: tls.Identity = getattr(tls, name)()
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "aiovbo", "check", "--retries", "0",
            "--url", raw.url, "--user", "x", "--ca-file", identity.ca_file,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env={"VBO_PASSWORD": "x"},
        )  # fmt: skip
        _, err = await process.communicate()
    assert process.returncode == 4
    assert BY_CERTIFICATE[name] in spoken(err.decode())


def spoken(err: str) -> str:
    """What was said, without line breaks, once it is sure that it was not said in Python."""
    assert "Traceback" not in err
    text = " ".join(err.split())
    assert not PYTHON.search(text), text
    return text


def messages() -> Iterator[str]:
    """Every text in the SDK's own code, with something in place of what it fills in."""
    for path in Path(aiovbo.__file__).parent.rglob("*.py"):
        if {"testing", "_cli"} & {*path.parts}:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        strings = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        parts = {id(part) for node in strings for part in ast.walk(node) if part is not node}
        parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if id(node) in parts:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(one.value) if isinstance(one, ast.Constant) else "'x'" for one in node.values
                )


NEVER_SAID_HERE = {
    "a client takes a Server(": "commands make fleets",
    "what replaces a server is a Server(": "they replace no server",
    "the fleet's credentials: Fleet(": "and give each server its own",
    "(http=...)": "they lend no session",
    "has auth=..., and would": "the same",
    "has trust_env=True": "the same",
    "has auto_decompress=False": "the same",
    "tls is a TLS, such as TLS(ca_file=...)": "they know what a TLS is",
    "(insecure=True)": "a line of the log, and no error",
    "openssl s_client": "a part of the message on pins, which is replaced as a whole",
}


def test_nothing_that_the_sdk_says_in_python_is_left_without_other_words() -> None:
    """But for what no command can bring about; a new message of that kind is found here."""
    left = {text for text in messages() if PYTHON.search(text) and PYTHON.search(to_cli_terms(text))}
    assert [text for text in left if not any(known in text for known in NEVER_SAID_HERE)] == []


def test_no_words_are_kept_for_what_the_sdk_does_not_say_any_more() -> None:
    """Each pattern fits one of its texts; that of a pin ends in a text of its own."""
    texts = list(messages())
    unused = [said for said in _OUR_WORDS if not any(re.search(said, text) for text in texts)]
    assert unused == ["To see it: openssl .*"]
    assert any(text.endswith("To see it: 'x'") for text in texts)
