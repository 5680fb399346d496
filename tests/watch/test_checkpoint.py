"""The file that keeps a watch's place: never silently "from now", whatever became of it."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import pytest
from harness.backups import server_of
from hypothesis import given, settings
from hypothesis import strategies as st

from aiovbo import (
    Checkpoint,
    CheckpointEntry,
    CheckpointError,
    CheckpointStore,
    ConfigError,
    Fleet,
    MemoryCheckpoint,
    ServerCheckpoint,
    SessionRecord,
)
from aiovbo.testing import BackupServer, World

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_NOBODY = 65534
KEYS = [UUID(int=number) for number in range(4)]
SOME = SessionRecord(NOW, is_open=True, marks=b"\0\0\0\7", revision=1)


async def filled(path: Path) -> None:
    """A file with a place in it."""
    store = Checkpoint(path)
    await store.open()
    await store.save("vbo", [CheckpointEntry(KEYS[0], SOME)], NOW, None)
    await store.close()


def truncated(path: Path) -> None:
    """Cut in the midst."""
    path.write_bytes(path.read_bytes()[:300])


def garbled(path: Path) -> None:
    """Overwritten in the midst."""
    data = bytearray(path.read_bytes())
    data[100:3000] = b"\xa5" * 2900
    path.write_bytes(data)


def emptied(path: Path) -> None:
    """Nothing left, as some file systems do after a power cut."""
    path.write_bytes(b"")


def no_database(path: Path) -> None:
    """Something else under that name."""
    path.write_text("x" * 5000)


def foreign(path: Path) -> None:
    """Another program's database."""
    path.unlink()
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE mine (a)")
    file.close()


def newer(path: Path) -> None:
    """Written by a later version."""
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version=99")
    file.close()


def directory(path: Path) -> None:
    """No file at all."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (truncated, "never a checkpoint"),
        (emptied, "never a checkpoint"),
        (garbled, "never a checkpoint"),
        (no_database, "never a checkpoint"),
        (foreign, "another program's file"),
        (newer, "upgrade aiovbo"),
        (directory, "the directory must exist"),
    ],
)
async def test_a_file_that_cannot_be_trusted_is_an_error(
    harm: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    """It names the file, what is wrong, and what to do; the file is left as it is."""
    path = tmp_path / "place.db"
    await filled(path)
    await asyncio.to_thread(harm, path)
    store = Checkpoint(path)
    with pytest.raises(CheckpointError, match=words) as caught:
        await store.open()
    assert "place.db" in str(caught.value)
    await store.close()
    assert path.exists()


async def test_an_opening_that_is_given_up_leaves_the_place_to_others(tmp_path: Path) -> None:
    """Wherever it is cancelled: no other code would close what it had opened."""
    path = tmp_path / "place.db"
    given_up = Checkpoint(path)
    for turns in range(40):
        opening = asyncio.create_task(given_up.open())
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            await given_up.close()
        other = Checkpoint(path)
        await other.open()
        await other.close()


async def test_a_second_watch_of_the_same_place_is_refused(tmp_path: Path) -> None:
    """In this process or another; when the first has closed, the file is free."""
    path = tmp_path / "place.db"
    first, second = Checkpoint(path), Checkpoint(path)
    await first.open()
    with pytest.raises(CheckpointError, match="using it"):
        await second.open()
    code = f"""
import asyncio
from aiovbo import Checkpoint, CheckpointError
async def main():
    try:
        await Checkpoint({str(path)!r}).open()
    except CheckpointError as error:
        print(error)
asyncio.run(main())
"""
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "using it" in run.stdout
    await first.close()
    await second.open()
    await second.close()


@pytest.fixture
def place_of_no_server(tmp_path: Path) -> Iterator[Path]:
    """A file that its user may not write, in a directory that may not be written either."""
    if os.geteuid() != 0 or not hasattr(os, "setresuid"):
        yield tmp_path / "place.db"
        tmp_path.chmod(0o700)
        return
    # Root may write anything, so another user has to try; pytest's own directory is closed to others.
    with TemporaryDirectory() as directory_name:
        os.chown(directory_name, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, 0)
        try:
            yield Path(directory_name) / "place.db"
        finally:
            os.setresuid(0, 0, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
@pytest.mark.parametrize("exists", [False, True])
async def test_a_file_that_cannot_be_written_is_an_error(exists: bool, place_of_no_server: Path) -> None:  # noqa: FBT001  # parametrised
    """It says whose permissions are missing."""
    if exists:
        await filled(place_of_no_server)
        place_of_no_server.chmod(0o400)
    place_of_no_server.parent.chmod(0o500)
    with pytest.raises(CheckpointError, match="this user must be able to write"):
        await Checkpoint(place_of_no_server).open()


async def test_a_disk_that_is_full_is_an_error_and_the_old_place_stays(tmp_path: Path) -> None:
    """A step is saved whole or not at all."""
    path = tmp_path / "place.db"
    store = Checkpoint(path)
    await store.open()
    await store.save("vbo", [CheckpointEntry(KEYS[0], SOME)], None, None)
    assert store._file is not None  # to make the disk full
    pages = store._file.execute("PRAGMA page_count").fetchone()[0]
    store._file.execute(f"PRAGMA max_page_count={pages}")
    many = [CheckpointEntry(UUID(int=number), SOME) for number in range(5000)]
    with pytest.raises(CheckpointError, match="full"):
        await store.save("vbo", many, None, None)
    found = await store.load("vbo")
    assert found is not None
    assert list(found.known) == [KEYS[0]]
    await store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no limits for files there")
async def test_a_disk_that_fails_to_write_is_an_error_and_the_old_place_stays(tmp_path: Path) -> None:
    """The error states the reason, not what happened to the transaction."""
    import resource  # not on Windows

    store = Checkpoint(tmp_path / "place.db")
    await store.open()
    await store.save("vbo", [CheckpointEntry(KEYS[0], SOME)], None, None)
    many = [CheckpointEntry(UUID(int=number), SOME) for number in range(5000)]
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"place\.db: .*(full|I/O)"):
            await store.save("vbo", many, None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = await store.load("vbo")
    assert found is not None
    assert list(found.known) == [KEYS[0]]
    await store.save("vbo", many, None, None)
    await store.close()


@pytest.mark.parametrize("replace", [False, True])
async def test_a_file_that_vanishes_while_it_is_used_ends_the_watch(replace: bool, tmp_path: Path) -> None:  # noqa: FBT001  # parametrised
    """What is saved into a deleted file is saved nowhere."""
    path = tmp_path / "place.db"
    async with BackupServer(World(now=NOW, speed=0, sessions=0), version="v6") as backup:
        fast = timedelta(milliseconds=20)
        async with Fleet([server_of(backup)]) as fleet:
            with pytest.raises(CheckpointError, match=r"place\.db: .*(removed|taken its place)"):
                async with fleet.watch(every=fast, checkpoint=Checkpoint(path)) as changes:
                    backup.world.add(creation_time=NOW, end_time=None)
                    await anext(changes)
                    path.unlink()
                    if replace:
                        path.write_bytes(b"")
                    async with asyncio.timeout(30):
                        while True:
                            backup.world.add(creation_time=NOW, end_time=None)
                            await anext(changes)


async def test_a_place_is_kept_for_each_server(tmp_path: Path) -> None:
    """A file that does not exist is created; a server without changes has no checkpoint."""
    path = tmp_path / "place.db"
    await filled(path)
    store = Checkpoint(path)
    await store.open()
    found = await store.load("vbo")
    assert found == ServerCheckpoint({KEYS[0]: SOME}, NOW)
    assert await store.load("another") is None
    await store.close()
    assert [one.name for one in tmp_path.iterdir()] == ["place.db"]


async def many(path: Path, count: int) -> tuple[bytes, bytes]:
    """File and log as a crash leaves them after so many saves."""
    store = Checkpoint(path)
    await store.open()
    for number in range(count):
        await store.save("vbo", [CheckpointEntry(UUID(int=number), SOME)], None, None)
    found = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    await store.close()
    return found


async def test_a_file_that_was_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    """Also one of which nothing is left; it is never taken for a new one."""
    path = tmp_path / "place.db"
    await many(path, 200)
    whole = path.read_bytes()
    for length in range(0, len(whole), 512):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="never a checkpoint"):
            await Checkpoint(path).open()


async def test_after_a_power_cut_it_is_as_after_one_of_the_saves(tmp_path: Path) -> None:
    """However much of the last writes reached the disk: old or new, never mixed, never none."""
    file, log = await many(tmp_path / "place.db", 30)
    path = tmp_path / "torn.db"
    for length in range(0, len(log) + 1, 2003):
        path.write_bytes(file)
        Path(f"{path}-wal").write_bytes(log[:length])
        store = Checkpoint(path)
        await store.open()
        found = await store.load("vbo")
        await store.close()
        assert found is not None
        assert found.known
        assert set(found.known) == {UUID(int=number) for number in range(len(found.known))}


async def test_a_file_of_which_only_the_log_is_left_is_an_error(tmp_path: Path) -> None:
    """It is gone, and was not yet saved whole: not a first start."""
    path = tmp_path / "place.db"
    _, log = await many(path, 3)
    path.unlink()
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(CheckpointError, match=r"removed .*; put it back, or delete what is left"):
        await Checkpoint(path).open()


async def test_the_file_can_be_read_while_it_is_in_use_and_a_reader_does_not_prevent_a_start(
    tmp_path: Path,
) -> None:
    """As a backup tool reads it: in a transaction that goes on while a watch starts, saves and ends."""
    path = tmp_path / "place.db"
    await filled(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        count = "SELECT count(*) FROM records"
        assert reader.execute(count).fetchone() == (1,)
        store = Checkpoint(path)
        await store.open()
        await store.save("vbo", [CheckpointEntry(KEYS[1], SOME)], NOW, None)
        assert reader.execute(count).fetchone() == (1,)
        reader.execute("COMMIT")
        assert reader.execute(count).fetchone() == (2,)
        await store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
async def test_a_link_to_a_file_that_does_not_exist_yet_is_followed(tmp_path: Path) -> None:
    """And two names of one file are one checkpoint."""
    (tmp_path / "data").mkdir()
    link, real = tmp_path / "place.db", tmp_path / "data" / "real.db"
    link.symlink_to(real)
    store, other = Checkpoint(link), Checkpoint(real)
    await store.open()
    with pytest.raises(CheckpointError, match="using it"):
        await other.open()
    await store.close()
    assert link.is_symlink()
    assert real.is_file()


async def test_a_message_names_the_directory_and_no_temporary_file(tmp_path: Path) -> None:
    """Where it does not exist."""
    with pytest.raises(CheckpointError) as caught:
        await Checkpoint(tmp_path / "nowhere" / "place.db").open()
    assert f"(directory: {tmp_path / 'nowhere'})" in str(caught.value)
    assert str(caught.value).count("place.db") == 1


async def test_a_lock_that_a_crash_left_is_free(tmp_path: Path) -> None:
    """Its file is there; nothing holds it."""
    path = tmp_path / "place.db"
    Path(f"{path}-lock").touch()
    await filled(path)
    assert [one.name for one in tmp_path.iterdir()] == ["place.db"]


def dated(days: int, **options: Any) -> tuple[UUID, SessionRecord]:
    return UUID(int=1000 + days), SessionRecord(NOW - timedelta(days=days), is_open=False, **options)


async def test_rewinding_a_server_forgets_what_was_created_since(tmp_path: Path) -> None:
    """Its horizon moves back to that moment at most; other servers and pending changes stay."""
    path = tmp_path / "place.db"
    store = Checkpoint(path)
    await store.open()
    found = dict([dated(0), dated(2, kind="removed"), dated(3), dated(5), dated(1, kind="pending")])
    entries = [CheckpointEntry(key, one) for key, one in found.items()]
    for name in ("vbo", "other"):
        await store.save(name, entries, NOW - timedelta(days=6), KEYS[1])
    since = NOW - timedelta(days=3)
    with pytest.raises(CheckpointError, match="using it"):
        await store.rewind("vbo", since)
    await store.close()
    await store.rewind("vbo", since)
    await store.rewind("other", NOW - timedelta(days=9))
    await store.open()
    place, other = await store.load("vbo"), await store.load("other")
    await store.close()
    assert place is not None
    assert other is not None
    assert place == ServerCheckpoint(
        dict([dated(3), dated(5), dated(1, kind="pending")]), NOW - timedelta(days=6), KEYS[1]
    )
    assert other == ServerCheckpoint(dict([dated(1, kind="pending")]), NOW - timedelta(days=9), KEYS[1])


async def test_rewinding_what_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """A server that the file does not have, a file that does not exist, a naive time."""
    path = tmp_path / "place.db"
    with pytest.raises(CheckpointError, match="does not exist"):
        await Checkpoint(path).rewind("vbo", NOW)
    assert not path.exists()
    await filled(path)
    with pytest.raises(CheckpointError, match="no server 'vbo9'; it has: 'vbo'"):
        await Checkpoint(path).rewind("vbo9", timedelta(days=1))
    with pytest.raises(ConfigError, match="time zone"):
        await Checkpoint(path).rewind("vbo", datetime(2026, 1, 1))  # noqa: DTZ001  # refused


ENTRIES = st.one_of(
    st.none(),
    st.builds(
        SessionRecord,
        created=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        is_open=st.booleans(),
        marks=st.binary(max_size=48),
        revision=st.integers(1, 10_000),
    ),
)
STEPS = st.lists(st.builds(CheckpointEntry, st.sampled_from(KEYS), ENTRIES), max_size=6)


SAVES = st.tuples(
    st.sampled_from(["vbo", "other"]), STEPS, st.none() | st.just(NOW), st.none() | st.sampled_from(KEYS)
)


@settings(max_examples=40)
@given(st.lists(SAVES, min_size=1, max_size=5))
def test_the_file_and_the_memory_keep_the_same_place(
    saves: list[tuple[str, list[CheckpointEntry], datetime | None, UUID | None]],
) -> None:
    """Whatever steps of whichever server are saved in whatever order, also within one save."""

    async def kept(store: CheckpointStore) -> tuple[object, ...]:
        await store.open()
        try:
            for save in saves:
                await store.save(*save)
            names = await store.servers()
            return [*names.items()], [await store.load(name) for name in names]
        finally:
            await store.close()

    with TemporaryDirectory() as directory_name:
        in_file = asyncio.run(kept(Checkpoint(Path(directory_name) / "place.db")))
    assert in_file == asyncio.run(kept(MemoryCheckpoint()))
