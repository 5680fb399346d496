"""The contributor's manual: `nox -l` lists what can be run, `nox` runs what a change must pass.

Each session makes an environment of its own, with uv where there is one, else with virtualenv.
To use the one you are in instead: `nox --no-venv --no-install -s lint`.
"""

import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_external_run = True
# A Python that is not installed here is skipped, with a line that says so.
nox.options.error_on_missing_interpreters = False

PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, on each Python that is supported."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
def public_http(session: nox.Session) -> None:
    """The tests of requests with aiohttp's public API alone; the other runs send GETs past it."""
    session.install("-e", ".[dev]")
    folders = [f"tests/{name}" for name in ("auth", "client", "fleet", "secrets", "transport")]
    run = ("python", "-m", "pytest", "-n", "auto", *(session.posargs or folders))
    session.run(*run, env={"AIOVBO_PUBLIC_HTTP": "1"})


@nox.session
def lowest(session: nox.Session) -> None:
    """The tests of decoding, requests and the command line, with the lowest versions that are declared."""
    run_lowest(session)


def run_lowest(session: nox.Session) -> None:
    """Install the lowest versions, then run the tests that depend on them most."""
    session.install("uv>=0.5")
    # uv by itself, whatever backend nox has: pip has no such resolution.
    session.run(
        *("uv", "pip", "install", "--quiet", "--python", f"{session.virtualenv.location}/bin/python"),
        *("--resolution", "lowest-direct", "-e", ".[dev]"),
    )
    folders = ("client", "core", "decoding", "inventory", "models", "settings", "transport")
    chosen = (*(f"tests/{name}" for name in folders), "tests/cli/test_demo.py", "tests/cli/test_ends.py")
    session.run("python", "-m", "pytest", "-n", "auto", *(session.posargs or chosen))


@nox.session
def typing(session: nox.Session) -> None:
    """Run mypy --strict and pyright; every type of the public interface must be declared."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    session.run("pyright")
    # It fails where a type that users can reach is unknown, or only inferred.
    session.run("pyright", "--verifytypes", "aiovbo", "--ignoreexternal")


@nox.session
def lint(session: nox.Session) -> None:
    """The linter, whether the formatter would change anything, and whether imports run downwards only."""
    session.install("ruff>=0.12", "import-linter>=2.5", "-e", ".")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("python", "tests/project/words.py")
    session.run("python", "tests/project/sentences.py", silent=True)


@nox.session
def examples(session: nox.Session) -> None:
    """Every example, every code block of the README, every example in a docstring."""
    session.install("-e", ".[dev]")
    names = (
        "examples",
        "more_examples",
        "fleet_page",
        "page_access",
        "monitoring",
        "readme",
        "how_to",
        "docstrings",
    )
    session.run("python", "-m", "pytest", *(f"tests/project/test_{name}.py" for name in names))


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, into docs/_build; a warning is an error."""
    build_docs(session)


def build_docs(session: nox.Session) -> None:
    """Build all pages anew."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-q", "-E", "-W", "--keep-going", "docs", "docs/_build")
    session.log("docs/_build/index.html")


@nox.session(default=False)
def pictures(session: nox.Session) -> None:
    """The pictures of README and docs, drawn of the embedded fleet into docs/pictures; changes files."""
    session.install("-e", ".[dev]")
    session.run("python", "tests/pictures.py", env={"PYTHONPATH": "tests"})


@nox.session
def package(session: nox.Session) -> None:
    """Wheel and sdist; the sdist's tests against the installed wheel, elsewhere."""
    session.install("build>=1.2")
    with TemporaryDirectory(prefix="aiovbo-") as name:
        there = Path(name).resolve()
        session.run("python", "-m", "build", "--outdir", name, silent=True)
        (wheel,) = there.glob("*.whl")
        (sdist,) = there.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(there, filter="data")
        unpacked = there / sdist.name.removesuffix(".tar.gz")
        # What is tested is the wheel, so its source must not be found first.
        shutil.rmtree(unpacked / "aiovbo")
        session.install(f"aiovbo[dev] @ {wheel.as_uri()}")
        with session.chdir(unpacked):
            session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session(default=False)
def release(session: nox.Session) -> None:
    """What is to be uploaded: built into dist/, checked, and listed at the end."""
    session.install("build>=1.2", "twine>=6")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", "dist", silent=True)
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))
    build_docs(session)
    run_lowest(session)
    session.run("python", "tests/project/distributions.py", "dist")


@nox.session
def demo(session: nox.Session) -> None:
    """The demonstration: fifteen embedded servers, three of them broken."""
    session.install("-e", ".[cli]")
    session.run("python", "-m", "aiovbo", "demo", *session.posargs)


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """A minute of random faults on 50 servers: nothing lost, doubled, left behind or sent astray."""
    session.install("-e", ".[dev]")
    session.run("python", "tests/chaos.py", *session.posargs)


@nox.session(default=False)
def properties(session: nox.Session) -> None:
    """The tests that make examples, with 1,000 examples each in place of 20."""
    session.install("-e", ".[dev]")
    chosen = ("-m", "hypothesis", "--hypothesis-profile=thorough", "--timeout=900")
    session.run("python", "-m", "pytest", "-n", "auto", *chosen, *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """A watching process that is killed 50 times at random moments: no change lost."""
    session.install("-e", ".[dev]")
    session.run("python", "tests/soak.py", *session.posargs)


@nox.session(default=False)
def postgres(session: nox.Session) -> None:
    """Processes that share a watch by PostgreSQL, and die, hang, join, leave: nothing lost, nothing twice."""
    session.install("-e", ".[dev]")
    session.run("python", "tests/bench/shared.py")
    session.run("python", "tests/shared_watches.py", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(default=False)
def proxies(session: nox.Session) -> None:
    """Requests through nginx, haproxy, tinyproxy and squid, where they are installed: what users read."""
    session.install("-e", ".[dev]")
    session.run("python", "tests/proxies", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(default=False)
def watching(session: nox.Session) -> None:
    """2,000 random histories of a watch in virtual time; then what watching 1,000 servers costs.

    With `--faults`: whether these histories find each fault that is put back.
    """
    session.install("-e", ".[testing,speed]")
    if "--faults" in session.posargs:
        session.run("python", "tests/watch_faults.py", *[one for one in session.posargs if one != "--faults"])
        return
    if not session.posargs or session.posargs[0].startswith(("--seeds", "--first")):
        session.run("python", "tests/seeds.py", *session.posargs)
    if not session.posargs or not session.posargs[0].startswith(("--seeds", "--first")):
        session.run("python", "tests/bench/watching.py", *session.posargs)
        if not session.posargs:
            session.run("python", "tests/bench/open_sessions.py")


@nox.session(default=False)
def clients(session: nox.Session) -> None:
    """The backup server of aiovbo.testing against another project's client, veeam-365."""
    session.install("-e", ".[dev]", "veeam-365")
    session.run("python", "-m", "pytest", "-n", "0", "-q", "tests/testing/test_other_clients.py")


@nox.session(default=False)
def schemathesis(session: nox.Session) -> None:
    """The backup server against requests that schemathesis makes from the vendor's documents, v6 to v8."""
    session.install("-e", ".[testing]", "schemathesis>=4.32", "jsonschema>=4.23")
    session.run("python", "tests/generated_requests.py", *session.posargs, env={"PYTHONPATH": "tests"})


RIVALS = ("veeam-365", "httpx2", "pydantic", "requests", "niquests", "pyreqwest", "orjson", "uvloop")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The SDK beside its rivals: tables, printed and written to a file; `--instructions`: by callgrind."""
    session.install("-e", ".[testing]", *RIVALS)
    session.run("python", "tests/bench", *(session.posargs or ["--out", "tests/bench/result.md"]))


@nox.session(default=False)
def calls(session: nox.Session) -> None:
    """How many functions and modules of the package one warm listing enters."""
    session.install("-e", ".[testing]")
    session.run("python", "tests/bench/calls.py", *session.posargs)


@nox.session(default=False)
def profile(session: nox.Session) -> None:
    """Where the time of a warm fan-out goes."""
    session.install("-e", ".[testing]")
    session.run("python", "tests/bench/where.py", *session.posargs)


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of what we depend on, and unsafe constructs in what we wrote."""
    session.install("bandit[toml]>=1.8", "pip-audit>=2.9", "-e", ".")
    session.run("bandit", "-q", "-c", "pyproject.toml", "-r", "aiovbo")
    session.run("pip-audit", "--skip-editable")


@nox.session(default=False)
def fix(session: nox.Session) -> None:
    """What linter and formatter can put right by themselves; changes files."""
    session.install("ruff>=0.12")
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")
