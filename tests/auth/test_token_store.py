"""Token stores: processes share tokens and rejected logins; what is on disk is for the user alone."""

import asyncio
import fcntl
import json
import logging
import os
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from harness.backups import asked, server_of

from aiovbo import (
    AuthenticationError,
    Client,
    Clock,
    ConfigError,
    FileTokenStore,
    Fleet,
    Password,
    RateLimitedError,
    ServerTimeoutError,
    SkippedError,
    StoredEntry,
    TokenStore,
)
from aiovbo.testing import BackupFleet, BackupServer, Fault, World

WRONG = Password("TECH\\monitor", "a-wrong-password")


@pytest.fixture
def store(tmp_path: Path) -> FileTokenStore:
    """A store in a file that does not exist yet."""
    return FileTokenStore(tmp_path / "tokens")


async def run_once(
    backup: BackupServer, store: TokenStore | None, *, later: float = 0, **changes: object
) -> int:
    """What a process of its own would do, `later` seconds from now: a new client, one listing, close."""
    clock = Clock(now=lambda: Clock().now() + timedelta(seconds=later))
    async with Client(server_of(backup, **changes), token_store=store, clock=clock) as client:
        return len(await client.restore_sessions())


async def test_processes_with_a_store_log_in_once(store: FileTokenStore) -> None:
    """Also where the server is throttled: the second process finds the token of the first."""
    async with BackupServer(token_limit=1) as backup:
        for _ in range(5):
            assert await run_once(backup, store) == 40
        assert (backup.logins, asked(backup, "token")) == (1, 1)
        assert not asked(backup, "token/logout")


async def test_without_a_store_nothing_is_shared_and_closing_logs_out() -> None:
    """Sharing is opt-in."""
    async with BackupServer() as backup:
        for _ in range(2):
            assert await run_once(backup, None) == 40
        assert (backup.logins, asked(backup, "token/logout")) == (2, 2)


async def test_a_stored_token_that_the_server_rejects_costs_one_login(store: FileTokenStore) -> None:
    """As after a restart of the server; the next process finds the new one."""
    async with BackupServer() as backup:
        await run_once(backup, store)
        backup.revoke_tokens()
        for _ in range(2):
            assert await run_once(backup, store) == 40
        assert backup.logins == 2


async def test_a_stored_token_that_has_expired_is_renewed(store: FileTokenStore) -> None:
    """By its refresh token; the wall clock counts its lifetime, as processes share no other."""
    async with BackupServer() as backup:
        await run_once(backup, store)
        for _ in range(2):
            assert await run_once(backup, store, later=4000) == 40
        assert (backup.logins, backup.refreshes) == (1, 1)


async def test_another_password_does_not_get_the_token(store: FileTokenStore) -> None:
    """A token is found only by what logged in to it."""
    async with BackupServer() as backup:
        await run_once(backup, store)
        with pytest.raises(AuthenticationError):
            await run_once(backup, store, credentials=WRONG)
        assert backup.refused_logins == 1


async def test_a_wrong_password_is_sent_to_three_servers_however_many_processes_try(
    store: FileTokenStore,
) -> None:
    """Three runs of a job over twenty servers within the cool-down."""
    plain = [BackupServer(World(sessions=1), name=f"vbo{n}", tls=False) for n in range(20)]
    async with BackupFleet(plain) as backups:
        servers = [server_of(one, name=one.name, credentials=WRONG) for one in backups]
        for _ in range(3):
            async with Fleet(servers, token_store=store) as fleet:
                result = await fleet.restore_sessions()
            kinds = [type(answer.error) for answer in result.answers.values()]
            assert (kinds.count(AuthenticationError), kinds.count(SkippedError)) == (3, 17)
            assert sum(one.refused_logins for one in backups) == 3


async def test_a_stored_rejection_says_what_the_server_said(store: FileTokenStore) -> None:
    """With the time that is left, under the name that the server has here, and nothing is sent."""
    async with BackupServer() as backup:
        for sent in (1, 0):
            with pytest.raises(AuthenticationError, match="Incorrect user name or password") as caught:
                await run_once(backup, store, credentials=WRONG, name=f"run{sent}")
            assert (caught.value.attempts, caught.value.server) == (sent, f"run{sent}")
            assert "not tried again for" in str(caught.value)
        assert backup.refused_logins == 1


async def test_after_the_cooldown_another_process_logs_in_and_clears_the_rejection(
    store: FileTokenStore,
) -> None:
    """The cool-down is counted by the wall clock between processes."""
    async with BackupServer(password="old") as backup:
        login = Password(backup.username, "new")
        with pytest.raises(AuthenticationError):
            await run_once(backup, store, credentials=login)
        backup.password = "new"
        with pytest.raises(AuthenticationError):
            await run_once(backup, store, credentials=login, later=290)
        assert await run_once(backup, store, credentials=login, later=301) == 40
        backup.revoke_tokens()
        assert await run_once(backup, store, credentials=login, later=302) == 40
        assert (backup.logins, backup.refused_logins) == (2, 1)


async def test_a_wall_clock_that_was_ahead_makes_no_cooldown_longer_than_an_hour(
    store: FileTokenStore,
) -> None:
    """Otherwise the password would not be tried again before that time."""
    async with BackupServer(password="old") as backup:
        login = Password(backup.username, "new")
        with pytest.raises(AuthenticationError):
            await run_once(backup, store, credentials=login, later=86400)
        with pytest.raises(AuthenticationError, match="for 3600 s"):
            await run_once(backup, store, credentials=login)


async def test_a_process_that_is_throttled_takes_the_token_that_another_stored(store: FileTokenStore) -> None:
    """The other one was let through meanwhile."""
    async with BackupServer(token_limit=1) as backup:

        class Late:
            """A store in which a token appears after the first time that it was looked for."""

            reads = 0

            async def read(self, key: str, /) -> StoredEntry | None:
                found = await store.read(key)
                if found is not None and "access_token" in found.value:
                    self.reads += 1
                    return None if self.reads == 1 else found
                return found

            async def update(
                self, key: str, change: Callable[[StoredEntry | None], StoredEntry | None], /
            ) -> None:
                await store.update(key, change)

        await run_once(backup, store)
        assert await run_once(backup, Late()) == 40
        assert (backup.logins, asked(backup, "token")) == (1, 2)
        async with Client(server_of(backup), deadline=0.9) as client:
            with pytest.raises(RateLimitedError):
                await client.restore_sessions()


async def test_the_file_is_private_and_contains_no_password(store: FileTokenStore, tmp_path: Path) -> None:
    """Mode 0600 whatever the umask is; tokens in clear text, passwords as digests only."""
    before = os.umask(0)
    try:
        async with BackupServer() as backup:
            await run_once(backup, store)
            with pytest.raises(AuthenticationError):
                await run_once(backup, store, credentials=WRONG)
    finally:
        os.umask(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens", "tokens.lock"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    text = (tmp_path / "tokens").read_text()
    assert next(request.token for request in backup.requests if request.token) in text
    assert backup.password not in text
    assert "a-wrong-password" not in text
    assert "secret-value" not in repr(StoredEntry("secret-value", 1.0))


def _symlink(path: Path) -> None:
    path.with_name("elsewhere").touch(mode=0o600)
    path.symlink_to(path.with_name("elsewhere"))


def _readable(path: Path) -> None:
    path.touch()
    path.chmod(0o644)


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("make", [_symlink, _readable, _pipe, Path.mkdir])
async def test_a_file_that_is_not_private_is_neither_read_nor_written(
    make: Callable[[Path], object], store: FileTokenStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logins continue as without a store, with a warning for each client that names the file."""
    make(tmp_path / "tokens")
    async with BackupServer() as backup:
        for _ in range(2):
            assert await run_once(backup, store) == 40
        assert backup.logins == 2
    # asyncio too reports steps that took long.
    levels = [record.levelno for record in caplog.records if record.name.startswith("aiovbo")]
    assert levels == [logging.WARNING] * 2
    assert str(tmp_path / "tokens") in caplog.text
    assert not any(path.read_text() for path in tmp_path.iterdir() if path.is_file())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"entries": {"a": 1}}', b"[" * 100_000])
async def test_a_broken_file_is_replaced(content: bytes, store: FileTokenStore, tmp_path: Path) -> None:
    """As after a full disk."""
    path = tmp_path / "tokens"
    path.write_bytes(content)
    path.chmod(0o600)
    async with BackupServer() as backup:
        for _ in range(2):
            assert await run_once(backup, store) == 40
        assert backup.logins == 1
    assert json.loads(path.read_bytes())["version"] == 1


@pytest.mark.parametrize(
    "value", ["", "[]", "{}", "null", '{"failures": {"x": {}}}', '{"access_token": "a b", "expires": 1}']
)
async def test_entries_of_another_form_are_ignored(value: str, store: FileTokenStore, tmp_path: Path) -> None:
    """Whatever another version of this package stores there."""
    path = tmp_path / "tokens"
    async with BackupServer() as backup:
        await run_once(backup, store)
        document = json.loads(path.read_bytes())
        for key in document["entries"].keys() - {"salt"}:
            document["entries"][key][0] = value
        path.write_text(json.dumps(document))
        assert await run_once(backup, store) == 40
        assert backup.logins == 2


async def test_updates_of_several_stores_at_once_are_not_lost(store: FileTokenStore, tmp_path: Path) -> None:
    """Each of them replaces the entry that the one before has written; what has expired is removed."""
    await store.update("old", lambda _: StoredEntry("x", 1.0))
    stores = [FileTokenStore(tmp_path / "tokens") for _ in range(4)]

    def count(old: StoredEntry | None) -> StoredEntry:
        return StoredEntry(str(int(old.value if old else "0") + 1), 1e12)

    await asyncio.gather(*(one.update("key", count) for one in stores for _ in range(5)))
    assert await store.read("key") == StoredEntry("20", 1e12)
    assert await store.read("old") is None


async def test_an_update_waits_for_a_process_that_is_slow_with_its_lock(
    store: FileTokenStore, tmp_path: Path
) -> None:
    """On busy cores, another process may hold the lock for more than 0.2 s."""
    await store.update("key", lambda _: StoredEntry("1", 1e12))
    with (tmp_path / "tokens.lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        update = asyncio.create_task(store.update("key", lambda _: StoredEntry("2", 1e12)))
        done, _ = await asyncio.wait([update], timeout=0.4)
        assert not done
    await update
    assert await store.read("key") == StoredEntry("2", 1e12)


async def test_a_store_that_fails_costs_no_login(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises is logged once, without its text, which may contain a token."""

    class Broken:
        async def read(self, key: str, /) -> StoredEntry | None:
            raise RuntimeError(key + "token-in-a-message")

        async def update(self, key: str, change: object, /) -> None:
            raise RuntimeError(key + repr(change) + "token-in-a-message")

    async with BackupServer() as backup:
        assert await run_once(backup, Broken()) == 40
    assert caplog.text.count("RuntimeError") == 1
    assert "token-in-a-message" not in caplog.text


async def test_a_store_that_hangs_does_not_keep_a_login_beyond_its_deadline() -> None:
    """The outcome of a login that was cut off by the deadline is then not stored."""
    never = asyncio.Event()

    class Hanging:
        async def read(self, key: str, /) -> StoredEntry | None:
            return StoredEntry("00", 1e12) if key == "salt" else None

        async def update(self, key: str, change: object, /) -> None:  # noqa: ARG002  # as the protocol has them
            await never.wait()

    async with BackupServer(tls=False) as backup:
        backup.fail(Fault.stall(), on="token", times=None)
        async with Client(server_of(backup), token_store=Hanging(), deadline=0.2) as client:
            async with asyncio.timeout(30):
                with pytest.raises(ServerTimeoutError):
                    await client.restore_sessions()


@pytest.mark.parametrize("given", ["tokens", Path("tokens"), FileTokenStore])
def test_what_is_not_a_token_store_is_rejected(given: object) -> None:
    """A path is likely meant as FileTokenStore(path)."""
    with pytest.raises(ConfigError, match="FileTokenStore"):
        Fleet(["vbo1"], WRONG, token_store=given)  # type: ignore[arg-type]  # on purpose
