"""The systemd unit and the cron line of the documentation send an alert, as printed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer
from threading import Thread

import pytest
from harness.readme import PAGES, blocks

from aiovbo.testing import BackupServer

PAGE = PAGES["services"]
(UNIT,) = blocks("ini", PAGE)
(CRON_LINE,) = (block for block in blocks("text", PAGE) if "flock" in block)
EXAMPLE = json.loads(blocks("json", PAGE)[0])
PROGRAM = "/opt/aiovbo/bin/aiovbo"


def start_command() -> str:
    """What the unit starts, on one line."""
    (found,) = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", UNIT, re.MULTILINE)
    return str(found).replace("\\\n", " ")


def cron_command() -> str:
    """The cron line without its five fields of time."""
    return CRON_LINE.split(maxsplit=5)[5]


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock of util-linux")
@pytest.mark.parametrize("command", [start_command(), cron_command()], ids=["systemd", "cron"])
def test_the_documented_command_mails_a_failed_restore(
    command: str, servers: list[BackupServer], inventory: Path, tmp_path: Path
) -> None:
    """In the small environment of a service, with a `mail` that writes to a file."""
    now = servers[2].world.now
    failed = servers[2].world.add(creation_time=now - timedelta(hours=3), end_time=now, result="Failed")
    mail = tmp_path / "mail"
    mail.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat >> {tmp_path}/mailbox\n', encoding="utf-8"
    )
    mail.chmod(0o700)
    for printed, here in (
        (PROGRAM, f"{sys.executable} -m aiovbo"),
        ("/etc/aiovbo/fleet.toml", str(inventory)),
        ("/var/lib/aiovbo", str(tmp_path)),
        (" watch ", " watch --server vbo2 --since 24h --every 0.1s --count 1 "),
    ):
        assert printed in command
        command = command.replace(printed, here)
    # systemd starts programs itself, and quotes almost as a shell does; cron runs /bin/sh.
    program = ["/bin/sh", "-c", command] if "flock" in command else shlex.split(command)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "VBO_TEST_PASSWORD": os.environ["VBO_TEST_PASSWORD"]}
    for one in servers[2].world.sessions:
        if one.id != failed.id:
            servers[2].world.change(one.id, result="Success")
    subprocess.run(program, env=environment, check=True, timeout=150, stdout=subprocess.DEVNULL)
    assert (tmp_path / "arguments").read_text(encoding="utf-8") == "-s A restore failed admins@tech.local\n"
    alert = json.loads((tmp_path / "mailbox").read_text(encoding="utf-8"))
    assert (alert["session"]["id"], alert["change"]) == (str(failed.id), "Finished")
    assert EXAMPLE.keys() == alert.keys()
    assert EXAMPLE["session"].keys() <= alert["session"].keys()


@contextmanager
def mail_server(received: list[str]) -> Iterator[int]:
    """The port of a server that takes one mail by SMTP."""

    class Session(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            is_text = False
            for line in self.rfile:
                received.append(line.decode().rstrip("\r\n"))
                if is_text and line != b".\r\n":
                    continue
                is_text = line.upper().startswith(b"DATA")
                reply = {b"DATA": b"354 text", b"QUIT": b"221 bye"}.get(line[:4].upper(), b"250 yes")
                self.wfile.write(reply + b"\r\n")

    with TCPServer(("127.0.0.1", 0), Session) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        yield server.server_address[1]
        thread.join()


def test_the_documented_program_sends_a_readable_mail() -> None:
    """Of the line of JSON that the page shows."""
    received: list[str] = []
    (program,) = blocks("python", PAGE)
    with mail_server(received) as port:
        here = program.replace('"mail.tech.local"', f'"127.0.0.1", {port}')
        assert here != program
        command = [sys.executable, "-W", "error", "-c", here]
        subprocess.run(command, input=json.dumps(EXAMPLE), text=True, check=True, timeout=150)
    # Python 3.13 writes it in another case.
    assert "rcpt to:<admins@tech.local>" in [line.casefold() for line in received]
    assert "Subject: Restore failed on vbo2" in received
    assert "Details: Restore failed: the target could not be found." in received


AUDIT_LINE = next(block for block in blocks("text", PAGES["audits"]) if PROGRAM in block)


def test_the_nightly_audit_of_cron_writes_both_files(
    servers: list[BackupServer], inventory: Path, tmp_path: Path
) -> None:
    """As printed, in the small environment of cron."""
    command = AUDIT_LINE.split(maxsplit=5)[5].replace("\\%", "%")  # as cron does
    for printed, here in (
        (PROGRAM, f"{sys.executable} -m aiovbo"),
        ("/etc/aiovbo/fleet.toml", str(inventory)),
        ("/var/lib/aiovbo", str(tmp_path)),
    ):
        assert printed in command
        command = command.replace(printed, here)
    environment = {"PATH": "/usr/bin:/bin", "VBO_TEST_PASSWORD": os.environ["VBO_TEST_PASSWORD"]}
    subprocess.run(["/bin/sh", "-c", command], env=environment, check=True, timeout=150)
    (page,), (rows,) = tmp_path.glob("audit-20*-*-*.html"), tmp_path.glob("audit-20*-*-*.csv")
    assert all(server.name in page.read_text(encoding="utf-8") for server in servers)
    assert rows.read_text(encoding="utf-8-sig").startswith("server,")
    assert page.stat().st_mode & 0o077 == rows.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", [CRON_LINE, AUDIT_LINE], ids=["alerts", "audit"])
def test_cron_reads_the_line_as_it_is(text: str) -> None:
    """One line, five fields of time, and no bare percent sign, which ends a command there."""
    (line,) = text.splitlines()
    fields = line.split(maxsplit=5)[:5]
    assert all(re.fullmatch(r"[\d*/,-]+", one) for one in fields)
    assert not re.search(r"(?<!\\)%", line)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """It knows every section and setting; the program is replaced by one that exists here."""
    unit = tmp_path / "aiovbo-alerts.service"
    unit.write_text(UNIT.replace(PROGRAM, sys.executable), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    said = [line for line in checked.stderr.splitlines() if unit.name in line]
    assert (checked.returncode, said) == (0, []), checked.stderr
