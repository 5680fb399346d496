"""The commands, against running backup servers: what they print, where, and how they end."""

import csv
import io
import json
import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
from harness.readme import ROOT, blocks

from aiovbo._cli._app import main
from aiovbo.testing import BackupServer, Fault, World

COMMAND = [sys.executable, "-W", "error", "-m", "aiovbo"]
EVIL = "\x1b[31m[red]=cmd()|x"


def silence(server: BackupServer) -> None:
    server.fail(Fault.status(503), times=None)


# ------------------------------------------------------------------------------------------ sessions


@pytest.mark.usefixtures("inventory")
def test_sessions_are_a_table_and_the_count_goes_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe: plain text of 120 columns, with organizations' names on v4 too."""
    assert main(["sessions"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:3] == ["server", "organization", "type"]
    assert sorted(line[0] for line in lines[1:]) == sorted(5 * ["vbo0", "vbo1", "vbo2"])
    assert all(line[1] != "-" for line in lines[1:]), out
    assert "\x1b" not in out
    assert err.strip() == "15 sessions of 3 servers, times in UTC"


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--since", "150m"], 6), (["--server", "vbo1"], 5), (["--label", "site=a"], 10),
        (["--state", "stopped"], 15), (["--state", "working"], 0), (["--organization", "none.such"], 0),
        (["--organization", "ONMICROSOFT"], 15), (["--since", "2000-01-01"], 15),
    ],
)  # fmt: skip
def test_filters_keep_what_fits(options: list[str], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Case does not matter, and several options must all fit."""
    assert main(["sessions", "--output", "json", *options]) == 0
    assert len(json.loads(capsys.readouterr().out)) == count


@pytest.mark.usefixtures("inventory")
def test_json_and_jsonl_are_the_same_documents(capsys: pytest.CaptureFixture[str]) -> None:
    """Under the API's own names, with the server's name; JSON newest first, JSON lines as they come."""
    assert main(["sessions", "--output", "json"]) == 0
    documents = json.loads(capsys.readouterr().out)
    assert main(["sessions", "--output", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(lines, key=lambda one: one["id"]) == sorted(documents, key=lambda one: one["id"])
    assert documents == sorted(documents, key=lambda one: one["creationTime"], reverse=True)
    assert {"server", "id", "organization", "creationTime", "_links"} <= set(documents[0])


@pytest.mark.usefixtures("inventory")
def test_csv_holds_neither_formulas_nor_commands_of_a_terminal(
    servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell that a spreadsheet would compute begins with an apostrophe."""
    servers[2].world.add(initiated_by="=HYPERLINK(1)", name=EVIL, reason="-2+3", organization="@SUM(1)")
    assert main(["sessions", "--output", "csv", "--server", "vbo2"]) == 0
    out = capsys.readouterr().out
    (found,) = (row for row in csv.DictReader(io.StringIO(out)) if row["reason"] == "'-2+3")
    assert (found["initiatedBy"], found["organization"]) == ("'=HYPERLINK(1)", "'@SUM(1)")
    assert "[red]=cmd()|x" in found["name"]
    assert "\x1b" not in out


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize("before", ["", "\x1b", " ", "\r\n", "\u202e", "\xa0\ufeff"])
@pytest.mark.parametrize("sign", "=+-@\uff1d\uff0b\uff0d\uff20")
def test_nothing_before_a_formula_makes_it_one_again(
    before: str, sign: str, servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is stripped before it reaches a terminal was a guard as well."""
    servers[2].world.add(initiated_by=f"{before}{sign}cmd()", reason="here")
    assert main(["sessions", "--output", "csv", "--server", "vbo2"]) == 0
    (found,) = (r for r in csv.DictReader(io.StringIO(capsys.readouterr().out)) if r["reason"] == "here")
    assert found["initiatedBy"] == f"'{sign}cmd()"


@pytest.mark.usefixtures("inventory")
def test_a_type_goes_by_its_product_and_a_word_that_is_new_is_doubted(
    servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Servers may know words that we do not; where none has one, that is said."""
    servers[2].world.add(type="Vet", reason="here")
    assert main(["sessions", "--output", "json", "--type", "Teams", "--server", "vbo2"]) == 0
    out, err = capsys.readouterr()
    assert {one["type"] for one in json.loads(out)} == {"Vet"}
    assert "known" not in err
    assert main(["sessions", "--type", "Vep", "--result", "failed", "--result", "Fine"]) == 0
    err = capsys.readouterr().err
    assert "no type is known as 'Vep': there are Vex, Veod, Vesp, Vet" in err
    assert "no result is known as 'Fine'" in err
    assert "'failed'" not in err


@pytest.mark.parametrize("command", ["sessions", "timeline"])
@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ("--result faild", "no result is known as 'faild': did you mean Failed?"),
        ("--result success --result sucess", "no result is known as 'sucess': did you mean Success?"),
        ("--state stoped", "did you mean Stopped?"),
        ("--type Exchnage", "did you mean Exchange?"),
        ("--type Vex,Vet", "'Vex,Vet' is not a valid type; give several as --type Vex --type Vet"),
    ],
)
def test_a_likely_typo_is_rejected_before_any_request(
    command: str,
    filters: str,
    said: str,
    *,
    inventory: Path,
    servers: list[BackupServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing found must not look like nothing restored."""
    assert main([command, "--fleet", str(inventory), *filters.split()]) == 2
    assert said in capsys.readouterr().err
    assert not [request for server in servers for request in server.requests]


@pytest.mark.usefixtures("inventory")
def test_a_session_without_a_link_to_its_organization_is_shown_without_it(
    servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is in the table of all of them."""

    def unlink(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "_links": {"self": document["_links"]["self"]}}

    key = servers[0].world.sessions[0].id
    servers[0].fail(Fault.edit(unlink), on="RestoreSessions/*", when=lambda r: r.path.endswith(str(key)))
    assert main(["show", str(key), "--server", "vbo0"]) == 0
    out, err = capsys.readouterr()
    assert str(key) in out
    assert "link" not in err


@pytest.mark.usefixtures("inventory")
def test_a_session_has_no_result_before_it_has_ended(
    servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Only JSON shows the result that the server sent with it."""
    running = servers[2].world.add(end_time=None, result="Success")
    ours = ["--server", "vbo2"]
    assert main(["show", str(running.id), *ours]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^state +Working", out, re.MULTILINE)
    assert not re.search(r"^result +Success", out, re.MULTILINE)
    assert main(["sessions", "--output", "json", "--result", "success", *ours]) == 0
    assert str(running.id) not in capsys.readouterr().out
    for form in ("json", "jsonl", "csv", "table"):
        assert main(["sessions", "--output", form, "--state", "working", *ours]) == 0
        out = capsys.readouterr().out
        assert "Working" in out
        assert ("Success" in out) is form.startswith("json")


@pytest.mark.usefixtures("inventory")
def test_failed_servers_change_the_status_and_are_listed_below(
    servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """3 if some failed, 4 if all did. The sessions of the others are printed."""
    silence(servers[0])
    assert main(["sessions", "--retries", "0"]) == 3
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 11
    assert "10 sessions of 2 servers" in err
    assert "1 of 3 servers gave no answer" in err
    assert re.search(r"^vbo0\n  GET \S+: HTTP 503", err, re.MULTILINE)
    assert main(["sessions", "--retries", "0", "--server", "vbo0"]) == 4


@pytest.mark.usefixtures("inventory")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sessions", "--since", "tomorrow"], "not a valid time: give 30m, 24h"),
        (["sessions", "--since", "2999-01-01"], "--since 2999-01-01 00:00:00 UTC lies in the future"),
        (["sessions", "--since", "yesterday", "--until", "yesterday"], "a date begins at 00:00"),
        (["sessions", "--until", "2020-01-01"], "is not before --until 2020-01-01 00:00:00 UTC"),
        (["sessions", "--columns", "x"], "--columns: there is no column 'x'; expected one of server, id,"),
        (["sessions", "--columns", "resutl"], "there is no column 'resutl'; did you mean result?"),
        (["sessions", "--sort", "-x"], "--sort: there is no column 'x'"),
        (["sessions", "--limit", "0"], "--limit"),
        (["sessions", "--output", "json", "--columns", "id"], "JSON has the server's own fields"),
        (["sessions", "--since", "99999999d"], "'99999999d' lies outside the years 1 to 9999"),
        (["sessions", "--since", "99999999999d"], "lies outside the years"),
        (["timeline", "--since", "0001-01-01T00:00+14:00"], "lies outside the years"),
        (["watch", "--every", "0s"], "'0s' is not a valid duration: give 30s, 5m or 24h │"),
        (["watch", "--every", "x"], "'x' is not a valid duration: give 30s, 5m or 24h │"),
        (["watch", "--every", "99999999999d"], "is not a valid duration"),
        (["watch", "--count", "0"], "--count. Must be >= 1."),
        (["watch", "--checkpoint", "nowhere/place.db"], "nowhere/place.db"),
        (["sessions", "--server", "vbo9"], "no server is called vbo9; there are: vbo0, vbo1, vbo2"),
        (["sessions", "--label", "site"], "--label is KEY=VALUE, not 'site'"),
        (["sessions", "--label", "site=c"], "no server has these labels"),
        (["sessions", "--lable", "x"], "--label"),
        (["sessions", "--fleet", "nowhere.toml"], "nowhere.toml"),
        (["sessions", "--user", "x"], "go with --url"),
        (["sessions", "--allow-http"], "go with --url"),
        (["sessions", "--url", "x", "--fleet", "x.toml"], "servers come from --fleet or from --url"),
        (["sessions", "--url", "x", "--user", "x", "--insecure", "--ca-file", "x"], "give one of them"),
        (["pin", "http://vbo1"], "has no certificate: it is not https"),
        (["sessions", "--url", "vbo1"], "--url needs --user"),
        (["sessions", "--url", "vbo1", "--user", "x"], "VBO_PASSWORD"),
        (["sessions", "--deadline", "-1"], "deadline is a number of seconds above 0"),
        (["show", "5"], "UUID"),
        (["timeline", "--since", "2999-01-01"], "lies in the future"),
        (["sesions"], "sessions"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Status 2, the word that is wrong, and no traceback."""
    monkeypatch.delenv("VBO_PASSWORD", raising=False)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in " ".join(re.sub("│\n│", " ", err).split())
    assert "Traceback" not in err


def test_without_servers_it_says_how_to_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An inventory or addresses, with an example."""
    monkeypatch.delenv("AIOVBO_FLEET", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 2
    assert "which servers? Give an inventory" in capsys.readouterr().err


def test_a_variable_that_is_empty_is_one_that_is_not_set(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a script sets to nothing names no inventory."""
    monkeypatch.setenv("AIOVBO_FLEET", "")
    monkeypatch.chdir(inventory.parent)
    assert main(["sessions"]) == 0
    inventory.unlink()
    capsys.readouterr()
    assert main(["sessions"]) == 2
    assert "which servers? Give an inventory" in capsys.readouterr().err


def test_an_empty_password_is_never_sent(
    servers: list[BackupServer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would count as a wrong one, of which an account has but a few."""
    monkeypatch.setenv("VBO_PASSWORD", "")
    trust = ["--user", servers[1].username, "--ca-file", servers[1].ca_file]
    assert main(["sessions", "--url", servers[1].url, *trust]) == 2
    assert "no password: set the variable VBO_PASSWORD" in capsys.readouterr().err
    assert not servers[1].requests


@pytest.mark.parametrize("typed", [b"\n", b"\x04"], ids=["nothing", "Ctrl-D"])
def test_an_empty_answer_to_the_password_prompt_is_reported(
    typed: bytes, servers: list[BackupServer]
) -> None:
    """No traceback, and no login."""
    ours, theirs = pty.openpty()
    kept = {key: value for key, value in os.environ.items() if key != "VBO_PASSWORD"}
    with subprocess.Popen(
        [*COMMAND, "check", "--url", servers[0].url, "--user", "x", "--insecure"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=kept,
        # Without a terminal of its own, it asks where its input comes from.
        start_new_session=True,
    ) as process:
        os.close(theirs)
        assert process.stderr is not None
        said = b""
        while b"Password of x: " not in said:
            chunk = os.read(process.stderr.fileno(), 4096)
            assert chunk, said
            said += chunk
        os.write(ours, typed)
        said += process.communicate(timeout=150)[1]
    os.close(ours)
    assert process.returncode == 2
    assert b"aiovbo: no password: set the variable VBO_PASSWORD" in said
    assert b"Traceback" not in said
    assert not servers[0].requests


def test_without_tls_a_server_is_asked_if_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an option of its own: the password is there for all on the way to read."""
    with BackupServer(World(sessions=3), tls=False).run_in_thread() as plain:
        monkeypatch.setenv("VBO_PASSWORD", plain.password)
        command = ["sessions", "--since", "1000d", "--url", plain.url, "--user", plain.username]
        assert main(command) == 2
        assert "say --allow-http" in capsys.readouterr().err
        assert not plain.requests
        assert main([*command, "--allow-http"]) == 0
        assert main(["check", *command[3:], "--allow-http"]) == 0


def test_addresses_do_without_an_inventory(
    servers: list[BackupServer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The password comes from the environment, and never from an argument."""
    monkeypatch.setenv("VBO_PASSWORD", servers[1].password)
    trust = ["--user", servers[1].username, "--ca-file", servers[1].ca_file]
    assert main(["sessions", "--url", servers[1].url, "--url", servers[2].url, *trust]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 11


@pytest.mark.parametrize("command", ["check", "sessions", "sessions --output json", "sessions --output csv"])
def test_no_command_prints_a_secret(
    command: str,
    inventory: Path,
    servers: list[BackupServer],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a password nor a token; one server refuses the password, and another fails."""
    monkeypatch.setenv("WRONG", "last year's")
    wrong = f"{{ username = '{servers[0].username}', password = {{ env = 'WRONG' }} }}"
    with inventory.open("a", encoding="utf-8") as file:
        file.write(f"\nrefused = {{ url = '{servers[0].url}', credentials = {wrong} }}\n")
    silence(servers[1])
    assert main([*command.split(), "--retries", "0"]) == 3
    shown = "".join(capsys.readouterr())
    tokens = {request.token for server in servers for request in server.requests if request.token}
    assert tokens
    assert servers[0].refused_logins == 1
    assert not [secret for secret in ("last year's", servers[2].password, *tokens) if secret in shown]


@pytest.mark.parametrize("command", ["check", "sessions", "show", "watch", "stop", "timeline", "pin"])
def test_no_command_takes_a_password(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands on a command line, everybody on the machine can read."""
    assert main([command, "--help"]) == 0
    assert f"Usage: aiovbo {command}" in (helped := capsys.readouterr().out)
    # The one option that is named after them takes no value.
    assert not re.search(
        r"--(\w+-)?(password|token|secret|assertion)", helped.replace("--no-token-store", "")
    )


# ------------------------------------------------------------------------------- the other commands


@pytest.mark.usefixtures("inventory")
def test_check_shows_every_step(servers: list[BackupServer], capsys: pytest.CaptureFixture[str]) -> None:
    """Versions, the pin, how many sessions; where a server fails, the steps that it took."""
    silence(servers[1])
    assert main(["check", "--retries", "0"]) == 3
    out, err = capsys.readouterr()
    shown = blocks("console", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"))[0].splitlines()
    assert shown[1].split() == out.splitlines()[0].split()
    rows = {line.split()[0]: re.split(r"  +", line.strip()) for line in out.splitlines()[1:]}
    for name, version in (("vbo0", "v4"), ("vbo2", "v8")):
        assert all(re.fullmatch(r"\d+ ms", text) for text in rows[name][1:4])
        assert re.fullmatch(r"[0-9a-f]{12}…", rows[name][4])
        assert (rows[name][5], rows[name][7]) == (version, "ok")
        assert rows[name][8].startswith("5 (")
    assert rows["vbo1"][5:] == ["failed", "-", "ok", "-"]
    assert "HTTP 503" in err


@pytest.mark.parametrize("columns", [40, 50, 60, 80])
def test_check_and_show_name_what_they_show_in_a_narrow_terminal(
    columns: int,
    inventory: Path,
    servers: list[BackupServer],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In whole: a server's name, what came of each step, and a session's id."""
    name = "backup-athens-03.internal.example.com"
    text = inventory.read_text(encoding="utf-8")
    inventory.write_text(text.replace("vbo2 = ", f'"{name}" = '), encoding="utf-8")
    silence(servers[1])
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["check", "--retries", "0"]) == 3
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= columns
    column = re.match("server +", lines[0])
    shown = "".join(line[: column.end()].strip() for line in lines) if column else out
    assert all(one in shown for one in ("vbo0", "vbo1", name))
    assert "failed" in out
    assert out.count("5 (") == 2
    session = servers[2].world.sessions[0]
    assert main(["show", str(session.id), "--server", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    values = "".join(line[14:].strip() for line in lines)
    assert name in values
    assert str(session.id) in values


def test_check_blames_the_step_that_failed(
    servers: list[BackupServer],
    inventory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of them once, and after it nothing; a certificate that is not trusted is shown."""
    servers[2].fail(Fault.status(503), on="RestoreSessions", times=None)
    monkeypatch.setenv("WRONG", "last year's")
    wrong = f"{{ username = '{servers[0].username}', password = {{ env = 'WRONG' }} }}"
    with socket.socket() as closed, socket.socket() as silent:
        closed.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with inventory.open("a", encoding="utf-8") as file:
            file.write(
                f"\nclosed = {{ url = '127.0.0.1:{closed.getsockname()[1]}' }}"
                f"\nsilent = {{ url = '127.0.0.1:{silent.getsockname()[1]}' }}"
                "\nnowhere = { url = 'name.invalid' }"
                f"\nuntrusted = {{ url = '{servers[0].url}', tls = {{}}, credentials.token.env = 'WRONG' }}"
                f"\nrefused = {{ url = '{servers[0].url}', credentials = {wrong} }}\n"
            )
        assert main(["check", "--retries", "0", "--deadline", "3"]) == 3
    out, err = capsys.readouterr()
    heads = re.split(r"  +", out.splitlines()[0].strip())
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines()[1:]]
    cells = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    failed = {name: [head for head, text in row.items() if text == "failed"] for name, row in cells.items()}
    assert failed == {
        "vbo0": [], "vbo1": [], "vbo2": ["sessions"], "closed": ["TCP"], "silent": ["TLS"],
        "nowhere": ["name"], "untrusted": ["TLS"], "refused": ["login"],
    }  # fmt: skip
    assert cells["untrusted"]["pin"] == cells["vbo0"]["pin"]
    assert cells["refused"]["sessions"] == cells["untrusted"]["version"] == cells["closed"]["TLS"] == "-"
    assert "`aiovbo pin` shows" in " ".join(err.split())
    assert "6 of 8 servers gave no answer" in err


@pytest.mark.usefixtures("inventory")
def test_show_finds_a_session_on_whichever_server(
    servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """With its events, and on v8 its statistics; on v4 there are none of these."""
    for number, has_statistics in ((0, False), (2, True)):
        (session, *_) = servers[number].world.sessions
        assert main(["show", str(session.id)]) == 0
        out = capsys.readouterr().out
        assert str(session.id) in out
        assert re.search(rf"^server +vbo{number}", out, re.MULTILINE)
        assert ("statistics" in out) is has_statistics
    # By default, one that does not answer would be waited for until this test is too late.
    servers[1].fail(Fault.stall(), times=None)
    assert main(["show", str(session.id)]) == 0
    servers[1].heal()
    assert main(["show", str(uuid4())]) == 2
    assert "on the 3 servers that answered" in capsys.readouterr().err


@pytest.mark.usefixtures("inventory")
def test_stop_asks_first(servers: list[BackupServer], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal it does nothing; `--yes` replaces the question."""
    running = servers[1].world.add(end_time=None)
    assert main(["stop", str(running.id)]) == 2
    assert "standard input is not a terminal" in capsys.readouterr().err
    assert not [
        request for request in servers[1].requests if request.method == "POST" and "Stop" in request.path
    ]
    assert main(["stop", str(running.id), "--yes"]) == 0
    assert "Stop requested." in capsys.readouterr().out
    assert main(["stop", str(running.id), "--yes"]) == 2
    assert "the session has already ended" in capsys.readouterr().err


@pytest.mark.usefixtures("inventory")
def test_watch_reports_changes_and_continues_where_it_ended(
    servers: list[BackupServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line each; with a checkpoint, nothing is printed twice."""
    place = ["--checkpoint", str(tmp_path / "place.db"), "--every", "0.1s"]
    assert main(["watch", *place, "--since", "24h", "--count", "30", "--output", "jsonl"]) == 0
    first = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["change"] for one in first} == {"Added", "Finished"}
    assert len({one["session"]["id"] for one in first}) == 15
    servers[2].world.add(end_time=None, name=EVIL)
    assert main(["watch", *place, "--count", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "vbo2  started  " in line
    assert "\x1b" not in line
    assert main(["watch", *place, "--rewind", "24h", "--count", "10", "--output", "jsonl"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len({one["id"] for one in first} & {one["id"] for one in again}) >= 9
    assert main(["watch", "--rewind", "24h"]) == 2
    assert "--rewind needs --checkpoint" in capsys.readouterr().err


@pytest.mark.usefixtures("inventory")
def test_watch_says_of_a_server_that_refuses_the_password_what_is_true(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did answer, so the line does not say that it is down."""
    monkeypatch.setenv("VBO_TEST_PASSWORD", "last year's")
    assert main(["watch", "--every", "0.1s", "--count", "1", "--server", "vbo1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "vbo1  down     cannot be queried: the login was rejected (HTTP 4" in line


@pytest.mark.usefixtures("inventory")
def test_timeline_draws_bars_or_a_picture(
    tmp_path: Path, servers: list[BackupServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every server has its row, every session its rectangle; of whom nothing is known, that is said."""
    assert main(["timeline", "--since", "6h"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("vbo0", "vbo1", "vbo2", "UTC"))
    picture = tmp_path / "timeline.svg"
    assert main(["timeline", "--since", "6h", "--svg", str(picture)]) == 0
    assert picture.read_text(encoding="utf-8").count("<rect ") == 15
    silence(servers[1])
    assert main(["timeline", "--retries", "0"]) == 3
    assert re.search("^vbo1 no answer", capsys.readouterr().out, re.MULTILINE)
    assert main(["timeline", "--retries", "0", "--svg", str(picture)]) == 3
    assert picture.read_text(encoding="utf-8").count(">no answer<") == 1
    capsys.readouterr()
    assert main(["timeline", "--svg", str(tmp_path / "nowhere" / "timeline.svg")]) == 2
    assert "timeline.svg: No such file or directory" in capsys.readouterr().err


def test_pin_gives_the_line_that_an_inventory_needs(
    servers: list[BackupServer], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with that pin, the server is trusted; no line ends in spaces."""
    assert main(["pin", servers[0].url]) == 0
    shown = capsys.readouterr().out
    assert all(line == line.rstrip() for line in shown.splitlines())
    found = re.search(r'tls = \{ pin = "(sha256:[0-9a-f]{64})" \}', shown)
    assert found is not None
    monkeypatch.setenv("VBO_PASSWORD", servers[0].password)
    trusted = ["--url", servers[0].url, "--user", servers[0].username, "--pin", found[1]]
    assert main(["sessions", *trusted]) == 0


def test_a_server_that_cannot_be_reached_costs_the_same_status_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it was to be asked or only to show its certificate."""
    monkeypatch.setenv("VBO_PASSWORD", "x")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{closed.getsockname()[1]}"
        for command in (["pin", url], ["check", "--retries", "0", "--url", url, "--user", "x"]):
            assert main(command) == 4
            assert "the connection was refused" in capsys.readouterr().err


def test_the_schema_is_one_and_accepts_an_inventory(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that the tests use, and not one with a word misspelt."""
    import tomllib  # here only

    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    document = tomllib.loads(inventory.read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "sevrers": {}}, schema)
