"""The tests' own tools do what they say, and catch what they are there to catch."""

import asyncio
import hashlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from harness import (
    ANY,
    Bystander,
    RawServer,
    VirtualClock,
    assert_nothing_left,
    assert_nothing_open,
    cancel_at_every_await,
    http,
    snapshot,
    stall,
)
from harness import tls as identities
from harness.peers import talking

HERE = Path(__file__).parents[1]


@pytest.fixture
async def client():
    """A plain aiohttp client."""
    async with aiohttp.ClientSession() as session:
        yield session


# ----------------------------------------------------------------------------------------- clock


async def test_virtual_time_passes_when_a_task_sleeps():
    """An hour takes one turn of the loop, and both clocks show it."""
    clock = VirtualClock()
    began = clock.now()
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await clock.sleep(3600)
    clock.advance(60)
    assert (clock.monotonic(), clock.slept, turns) == (3660, [3600], [1])
    assert clock.now() - began == timedelta(seconds=3660)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_a_wall_clock_may_jump():
    """Setting the wall clock leaves the monotonic one alone."""
    clock = VirtualClock()
    began = clock.now()
    clock.set_wall(timedelta(hours=-8))
    assert (clock.monotonic(), clock.now() - began) == (0, timedelta(hours=-8))


def test_chance_repeats_itself():
    """The same seed, the same numbers."""
    first, second, other = VirtualClock(seed=1), VirtualClock(seed=1), VirtualClock(seed=2)
    assert first.random() == second.random() != other.random()


# ----------------------------------------------------------------------------------------- leaks


@pytest.fixture
def impatient(monkeypatch):
    """Leaks are not given a second to go away by themselves."""
    monkeypatch.setattr("harness.leaks._SETTLING", 0.02)


async def test_a_task_left_behind_is_named_with_its_stack(impatient):
    """The report says which task, and where it waits."""
    before = snapshot()
    stray = asyncio.create_task(asyncio.Event().wait(), name="stray")
    with pytest.raises(AssertionError, match=r"(?s)task 'stray' running.*Event.wait.*locks.py"):
        await assert_nothing_left(before)
    stray.cancel()
    await assert_nothing_left(before)


async def test_a_socket_left_behind_is_named(impatient):
    """The report says which descriptor, and that it is a socket; pools may be spared."""
    before = snapshot()
    with closing(socket.socket()) as stray:
        with pytest.raises(AssertionError, match=rf"file {stray.fileno()}: socket:"):
            await assert_nothing_left(before)
        await assert_nothing_left(before, serving=True)
        with pytest.raises(AssertionError, match="socket:"):
            assert_nothing_open(before)
    assert_nothing_open(before)


def test_a_file_left_behind_is_named(impatient):
    """The report says which file."""
    before = snapshot()
    with Path(__file__).open(), pytest.raises(AssertionError, match=r"test_harness\.py"):
        assert_nothing_open(before)


def test_a_thread_left_behind_is_named(impatient):
    """The report says which thread."""
    before = snapshot()
    go = threading.Event()
    stray = threading.Thread(target=go.wait, name="stray")
    stray.start()
    with pytest.raises(AssertionError, match="thread 'stray'"):
        assert_nothing_open(before)
    go.set()
    stray.join()
    assert_nothing_open(before)


async def test_what_is_just_ending_is_waited_for():
    """A task, a thread and a transport that need some more turns are no leaks."""
    before = snapshot()
    async with RawServer(stall()) as raw:
        _, writer = await asyncio.open_connection(raw.host, raw.port)
        writer.close()
    threading.Timer(0.03, int).start()
    ending = asyncio.create_task(asyncio.sleep(0.03))
    await assert_nothing_left(before)
    assert ending.done()


LEAKY = """
import asyncio, socket, time
import aiovbo

kept = []

async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(60), name="stray"))

def test_socket():
    kept.append(socket.socket())

async def test_forgotten():
    socket.socket()

async def test_blocking():
    source = "import time" + chr(10) + "time.sleep(0.01)"
    exec(compile(source, aiovbo.__path__[0] + "/_made_up.py", "exec"))

async def test_blocking_of_others():
    time.sleep(0.001)

async def test_sound():
    server = await asyncio.start_server(print, "127.0.0.1", 0)
    await asyncio.to_thread(int)
    server.close()
"""


def test_every_test_is_watched(tmp_path):
    """The fixtures around every test report each kind of leak where it happened, and nothing else."""
    file = tmp_path / "test_leaky.py"
    file.write_text(LEAKY)
    command = [sys.executable, "-m", "pytest", "-c", HERE.parent / "pyproject.toml", "-p", "conftest"]
    run = subprocess.run(  # our own file
        [*command, "-p", "no:cacheprovider", file],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=False,
    )
    summary = run.stdout[run.stdout.index("short test summary") :]
    found = set(re.findall(r"(ERROR|FAILED) .*::test_(\w+) - (\w+)", summary))
    assert found == {
        ("ERROR", "task", "AssertionError"),
        ("ERROR", "socket", "AssertionError"),
        ("FAILED", "forgotten", "pytest"),
        ("FAILED", "blocking", "blockbuster"),
    }, run.stdout
    assert "task 'stray'" in run.stdout
    assert "2 failed, 4 passed, 2 errors" in run.stdout


# ---------------------------------------------------------------------------------- cancellation


async def test_every_await_is_cancelled_once():
    """Each suspension of the operation, in its callees too, gets its cancellation and its check."""
    seen, checks = [], []

    async def inner(name):
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            seen.append(name)
            raise

    async def operation():
        await inner("a")
        try:
            async with asyncio.timeout(1):
                await asyncio.create_task(inner("child"))
        except asyncio.CancelledError:
            seen.append("b")
            raise
        await inner("c")

    async def check():
        checks.append(1)

    assert await cancel_at_every_await(operation, check) == 3
    assert ([name for name in seen if name != "child"], len(checks)) == (["a", "b", "c"], 5)


async def test_an_operation_that_never_waits_has_no_points():
    """There is nowhere to cancel it."""

    async def operation():
        return 1

    assert await cancel_at_every_await(operation) == 0


async def test_a_swallowed_cancellation_is_reported_with_its_place():
    """Ending as if nothing had happened is a failure."""

    async def operation():
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return

    with pytest.raises(AssertionError, match=r"point 1, .*and swallowed it"):
        await cancel_at_every_await(operation)


async def test_an_error_instead_of_the_cancellation_is_reported():
    """Something else that comes out is a failure, with its cause."""

    async def operation():
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise KeyError("lost") from None

    with pytest.raises(AssertionError, match="failed instead") as caught:
        await cancel_at_every_await(operation)
    assert isinstance(caught.value.__cause__, KeyError)


async def test_a_slow_cancellation_is_reported_and_ended():
    """Who takes longer than allowed to give up is reported, and not left running."""
    before = snapshot()

    async def operation():
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0.3 if asyncio.current_task().cancelling() else 0)

    with pytest.raises(AssertionError, match=r"operation > tasks.py.*still running 0.05 s later"):
        await cancel_at_every_await(operation, within=0.05)
    await assert_nothing_left(before)


async def test_what_is_left_after_a_cancellation_is_found_by_the_check():
    """A child that outlives its cancelled parent does not go unnoticed."""
    before = snapshot()
    children = []

    async def operation():
        children.append(asyncio.create_task(asyncio.sleep(0.01)))
        await asyncio.wait(children)

    async def check():
        assert all(child.done() for child in children), "outlived"

    with pytest.raises(AssertionError, match="outlived"):
        await cancel_at_every_await(operation, check)
    await assert_nothing_left(before)


async def test_too_many_points_are_a_failure():
    """A limit that was reached is not taken for a pass."""

    async def operation():
        for _ in range(10):
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="more than 5 points"):
        await cancel_at_every_await(operation, limit=5)
    assert await cancel_at_every_await(operation, limit=10) == 10


async def test_real_requests_are_cancelled_at_their_suspensions(client):
    """An operation over a network can be driven too, and nothing of it is left."""
    async with RawServer({("GET", ANY): http(200, b"[]")}) as raw:
        before = snapshot()

        async def operation():
            async with client.get(raw.url) as answer:
                assert await answer.json() == []

        async def check():
            await assert_nothing_left(before, serving=True)

        assert await cancel_at_every_await(operation, check) >= 1


# ------------------------------------------------------------------------------------- bystander


async def test_an_undisturbed_bystander_says_nothing():
    """Equal answers, in time, are all that is wanted."""

    async def ask():
        await asyncio.sleep(0)
        return [1]

    async with Bystander(ask, every=0.001) as bystander:
        while len(bystander.latencies) < 3:
            await asyncio.sleep(0.001)
    assert bystander.p99 < 0.5


def burn(seconds):
    """Keep the thread busy for so much CPU time."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


@pytest.mark.parametrize(
    ("failure", "noticed"),
    [
        (lambda: 2, "the answer changed from 1 to 2"),
        (lambda: {}["gone"], "KeyError"),
        (lambda: burn(0.25), "p99 is"),
        (lambda: asyncio.sleep(60), "longer than 0.2 s"),
    ],
)
async def test_a_bystander_notices(failure, noticed):
    """A changed answer, an error, a slow answer and one that never comes are noticed."""
    happening = []

    async def ask():
        if not happening:
            return 1
        result = failure()
        return await result if asyncio.iscoroutine(result) else result or 1

    with pytest.raises(AssertionError, match=noticed):
        async with Bystander(ask, every=0.001, at_least=1, p99=0.2):
            await asyncio.sleep(0.005)
            happening.append(1)
            await asyncio.sleep(0.02)


async def test_too_few_answers_prove_nothing():
    """A block that was over too soon is a failure."""

    async def ask():
        return 1

    with pytest.raises(AssertionError, match="got 1 answers, not 3"):
        async with Bystander(ask, every=60):
            await asyncio.sleep(0)


async def test_a_bystander_does_not_hide_the_tests_own_error():
    """The error of the block is raised, with the bystander's failure as a note."""

    async def ask():
        return object()

    with pytest.raises(KeyError) as caught:
        async with Bystander(ask):
            await asyncio.sleep(0.005)
            raise KeyError
    assert "the answer changed" in caught.value.__notes__[0]


# ------------------------------------------------------------------------------------ identities


async def greeted(identity, *, host="127.0.0.1", strict=False, client_cert=None):
    """Connect, and read the server's greeting."""
    context = identity.client_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if client_cert is not None:
        context.load_cert_chain(client_cert.cert_file, client_cert.key_file)
    async with (
        RawServer([b"hello", stall()], ssl=identity.context) as raw,
        talking(raw, ssl=context, server_hostname=host) as (reader, writer),
    ):
        assert await reader.readexactly(5) == b"hello"
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


@pytest.mark.parametrize(
    "make",
    [
        identities.good,
        identities.renewed,
        identities.reversed_chain,
        identities.weak_ca,
    ],
)
async def test_a_good_identity_is_trusted(make):
    """Nothing stands in the way of a client with its authority, and the fingerprint is its own."""
    certificate = await greeted(make())
    assert make().pin == f"sha256:{hashlib.sha256(certificate).hexdigest()}"
    assert make() is make()
    assert identities.good().pin != identities.renewed().pin


@pytest.mark.parametrize("make", [identities.good, identities.reversed_chain])
async def test_a_good_identity_is_trusted_by_the_strict(make):
    """Python 3.13's stricter rules change nothing for them."""
    await greeted(make(), strict=True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (identities.other_ca, "unable to get local issuer|self-signed certificate in"),
        (identities.self_signed, "self-signed certificate"),
        (identities.expired, "has expired"),
        (identities.not_yet_valid, "not yet valid"),
        (identities.wrong_host, "IP address mismatch"),
        (identities.no_ip_san, "IP address mismatch"),
        (identities.cn_only, "IP address mismatch"),
        (identities.incomplete_chain, "unable to get local issuer"),
    ],
)
async def test_a_bad_identity_is_refused_for_its_one_fault(make, said):
    """Each is refused, and for the reason it is named for."""
    with pytest.raises(ssl.SSLCertVerificationError, match=said):
        await greeted(make())


async def test_a_weak_authority_is_refused_by_the_strict():
    """It lacks what Python 3.13 asks for by default."""
    with pytest.raises(ssl.SSLCertVerificationError, match="key usage"):
        await greeted(identities.weak_ca(), strict=True)


async def test_no_ip_san_is_good_for_the_name():
    """Its only fault is the address."""
    await greeted(identities.no_ip_san(), host="localhost")


async def test_a_huge_certificate_is_too_much_for_openssl():
    """Ten thousand names make a message that a client rejects, unless it is configured to accept it."""
    assert len(Path(identities.many_sans().cert_file).read_bytes()) > 100_000
    with pytest.raises(ssl.SSLError, match="EXCESSIVE_MESSAGE_SIZE"):
        await greeted(identities.many_sans())


async def test_an_old_protocol_is_refused():
    """TLS 1.1 is not spoken any more."""
    # Python before 3.11.4 lets the client's own OpenSSL refuse it first, for TLS 1.1's signature.
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL|legacy sigalg"):
        await greeted(identities.tls11_only())


async def test_a_client_certificate_is_required():
    """Without one, and with an expired one, the connection fails after the handshake."""
    identity = identities.client_cert_required()
    await greeted(identity, client_cert=identities.client())
    for bad in (None, identities.expired_client()):
        with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE"):
            await greeted(identity, client_cert=bad)
