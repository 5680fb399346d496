"""Runs of the command share tokens through a private folder, and through no other."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiovbo._cli._app import main
from aiovbo.testing import BackupFleet, BackupServer, World

SINCE = ["--since", "1000d"]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's runtime folder."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's state folder, which does not exist yet; there is no runtime folder."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@contextmanager
def plain(
    monkeypatch: pytest.MonkeyPatch, *, count: int = 1, limit: int | None = None
) -> Iterator[BackupFleet]:
    """So many servers without TLS, and their password in the environment."""
    servers = [
        BackupServer(World(sessions=1), name=f"vbo{n}", tls=False, token_limit=limit) for n in range(count)
    ]
    monkeypatch.setenv("VBO_PASSWORD", servers[0].password)
    with BackupFleet(servers).run_in_thread() as fleet:
        yield fleet


def arguments(backups: BackupFleet) -> list[str]:
    """How a command reaches all of them."""
    urls = [text for url in backups.urls for text in ("--url", url)]
    return [*urls, "--user", backups.username, "--allow-http"]


def posts(server: BackupServer) -> int:
    """Number of logins that a server received."""
    return sum(request.resource == "token" for request in server.requests)


def test_ten_runs_against_a_throttled_server_all_succeed(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cost one login together, and none of them logs out."""
    with plain(monkeypatch, limit=5) as backups:
        (server,) = backups.servers
        statuses = [main(["sessions", *SINCE, *arguments(backups)]) for _ in range(10)]
        assert statuses == [0] * 10
        assert posts(server) == 1
        assert not any(request.resource == "token/logout" for request in server.requests)


def test_three_runs_with_a_wrong_password_send_it_to_three_of_twenty_servers(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a job of cron does; without a store it would be three in each run."""
    with plain(monkeypatch, count=20) as backups:
        monkeypatch.setenv("VBO_PASSWORD", "last year's")
        for _ in range(3):
            assert main(["sessions", *arguments(backups)]) == 4
            assert sum(server.refused_logins for server in backups.servers) == 3
    assert "Incorrect user name or password" in capsys.readouterr().err


def test_without_a_token_store_each_run_logs_in_and_out(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--no-token-store`; nothing is written either."""
    with plain(monkeypatch) as backups:
        (server,) = backups.servers
        for _ in range(2):
            assert main(["sessions", *arguments(backups), "--no-token-store"]) == 0
        assert posts(server) == 2
        assert sum(request.resource == "token/logout" for request in server.requests) == 2
    assert not list(runtime.iterdir())


def test_the_state_folder_is_used_where_there_is_no_runtime_folder(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is created with mode 0700."""
    with plain(monkeypatch) as backups:
        for _ in range(2):
            assert main(["sessions", *arguments(backups)]) == 0
        assert posts(backups.servers[0]) == 1
    assert stat.S_IMODE((state / "aiovbo").stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "aiovbo" / "tokens").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["open", "symlink"])
def test_a_folder_that_is_not_private_is_not_used(
    kind: str, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each run logs in and out, and says why."""
    target = state / ("aiovbo" if kind == "open" else "elsewhere")
    target.mkdir(parents=True, mode=0o700)
    if kind == "open":
        target.chmod(0o755)
    else:
        (state / "aiovbo").symlink_to(target)
    with plain(monkeypatch) as backups:
        for _ in range(2):
            assert main(["sessions", *arguments(backups)]) == 0
        assert posts(backups.servers[0]) == 2
    assert f"no tokens are stored in {state / 'aiovbo'}" in caplog.text
    assert not list(target.iterdir())


def test_on_windows_no_token_is_stored(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modes do not protect a file there."""
    with plain(monkeypatch) as backups:
        with monkeypatch.context() as patched:
            patched.setattr("aiovbo._cli._token_folder._HAS_MODES", False)
            assert main(["sessions", *arguments(backups)]) == 0
        assert any(request.resource == "token/logout" for request in backups.servers[0].requests)
    assert not list(runtime.iterdir())


def test_check_says_that_it_used_a_stored_token(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There was no login whose time it could show."""
    with plain(monkeypatch) as backups:
        assert main(["check", *arguments(backups)]) == 0
        assert "stored" not in capsys.readouterr().out
        assert main(["check", *arguments(backups)]) == 0
        assert "stored" in capsys.readouterr().out
