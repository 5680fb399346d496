"""Where servers and settings come from when arguments, variables and files name them."""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from harness import Canary

from aiovbo import TLS, ConfigError, Fleet, Password
from aiovbo._cli._app import main
from aiovbo._cli._options import Selection
from aiovbo._cli._selection import fleet_of
from aiovbo.testing import BackupServer, World

PIN = "sha256:" + "ab" * 32
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes an inventory with one server of a name, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def inventory(path: str, name: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"allow_literal_secrets = true\n[fleet]\ndeadline = 11\nretries = 1\n[servers.{name}]\n"
            f"url = '{name}'\ncredentials = {{ username = 'u', password = 'p' }}\n",
            encoding="utf-8",
        )
        file.chmod(0o600)
        return file

    return inventory


def command_line() -> Fleet:
    """As a command without options finds it."""
    return fleet_of(Selection(no_token_store=True))


BOTH = pytest.mark.parametrize("find", [Fleet.from_env, command_line], ids=["SDK", "command line"])


def limits(fleet: Fleet) -> tuple[float, object]:
    """The deadline and the retries that apply."""
    options = fleet[next(iter(fleet))].operation().options
    return options.deadline, options.retries


@BOTH
def test_an_inventory_is_found_in_one_order(
    find: Callable[[], Fleet], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable, then the working directory, then the user's folder."""
    write("config/aiovbo/fleet.toml", "own")
    assert list(find()) == ["own"]
    write("fleet.toml", "here")
    assert list(find()) == ["here"]
    monkeypatch.setenv("AIOVBO_FLEET", str(write("elsewhere/other.toml", "named")))
    assert list(find()) == ["named"]
    monkeypatch.setenv("AIOVBO_FLEET", "  ")
    assert list(find()) == ["here"]


@BOTH
def test_addresses_in_a_variable_take_the_place_of_files(
    find: Callable[[], Fleet], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With account, password and trust from variables too."""
    write("fleet.toml", "here")
    monkeypatch.setenv("AIOVBO_URL", "vbo1, vbo2:9999 https://10.0.0.7")
    monkeypatch.setenv("AIOVBO_USER", "TECH\\monitor")
    monkeypatch.setenv("VBO_PASSWORD", "secret\r\n")
    monkeypatch.setenv("AIOVBO_PIN", PIN)
    fleet = find()
    assert list(fleet) == ["vbo1", "vbo2:9999", "10.0.0.7"]
    server = fleet["vbo1"].server
    assert server.credentials == Password("TECH\\monitor", "secret")
    assert server.tls == TLS(pin=PIN)
    monkeypatch.delenv("AIOVBO_PIN")
    monkeypatch.setenv("AIOVBO_CA_FILE", "ca.pem")
    assert find()["vbo1"].server.tls == TLS(ca_file="ca.pem")


@BOTH
def test_a_limit_in_a_variable_overrides_the_file(
    find: Callable[[], Fleet], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the proxy of a variable is for servers that have none."""
    write("fleet.toml", "here")
    assert limits(find()) == (11, 1)
    assert find()["here"].server.proxy is None
    monkeypatch.setenv("AIOVBO_DEADLINE", "2.5")
    monkeypatch.setenv("AIOVBO_RETRIES", "0")
    monkeypatch.setenv("AIOVBO_PROXY", "proxy:3128")
    assert limits(find()) == (2.5, 0)
    assert str(find()["here"].server.proxy) == "proxy:3128"


def test_arguments_override_variables(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the SDK and of the command line."""
    other = write("other.toml", "other")
    monkeypatch.setenv("AIOVBO_DEADLINE", "2.5")
    monkeypatch.setenv("AIOVBO_PROXY", "proxy:3128")
    monkeypatch.setenv("AIOVBO_URL", "vbo1")
    monkeypatch.setenv("AIOVBO_USER", "u")
    monkeypatch.setenv("AIOVBO_PIN", PIN)
    monkeypatch.setenv("VBO_PASSWORD", "p")
    fleet = Fleet.from_env(deadline=7, proxy="mine:1")
    assert limits(fleet)[0] == 7
    assert str(fleet["vbo1"].server.proxy) == "mine:1"
    fleet = fleet_of(Selection(no_token_store=True, deadline=7, proxy="mine:1", insecure=True, user="me"))
    assert limits(fleet)[0] == 7
    assert str(fleet["vbo1"].server.proxy) == "mine:1"
    assert fleet["vbo1"].server.tls == TLS(insecure=True)
    assert fleet["vbo1"].server.credentials == Password("me", "p")
    assert list(fleet_of(Selection(no_token_store=True, fleet=other))) == ["other"]
    assert list(fleet_of(Selection(no_token_store=True, url=["vbo2"]))) == ["vbo2"]


@BOTH
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "AIOVBO_FLEET"),
        ({"AIOVBO_FLEET": "a.toml", "AIOVBO_URL": "vbo1"}, "AIOVBO_FLEET or from AIOVBO_URL"),
        ({"AIOVBO_FLEET": "nowhere.toml"}, "nowhere.toml"),
        ({"AIOVBO_URL": "vbo1"}, "AIOVBO_USER"),
        ({"AIOVBO_URL": "vbo1", "AIOVBO_USER": "u"}, "VBO_PASSWORD"),
        ({"AIOVBO_URL": "vbo1", "AIOVBO_USER": "u", "VBO_PASSWORD": "p", "AIOVBO_RETRIES": "1.5"}, "whole"),
        ({"AIOVBO_URL": "vbo1", "AIOVBO_USER": "u", "VBO_PASSWORD": "p", "AIOVBO_DEADLINE": "x"}, "number"),
        ({"AIOVBO_URL": "vbo1", "AIOVBO_USER": "u", "VBO_PASSWORD": "p", "AIOVBO_DEADLINE": "0"}, "above 0"),
        (
            {"AIOVBO_URL": "vbo1", "AIOVBO_USER": "u", "VBO_PASSWORD": "p", "AIOVBO_PIN": PIN}
            | {"AIOVBO_CA_FILE": "x"},
            "AIOVBO_CA_FILE or AIOVBO_PIN",
        ),
    ],
)
def test_what_is_missing_or_invalid_is_named(
    find: Callable[[], Fleet],
    variables: dict[str, str],
    said: str,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variable, so that it can be set."""
    assert write("unused.toml", "unused").exists()
    monkeypatch.delenv("VBO_PASSWORD", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        find()


def test_a_proxy_that_is_invalid_is_named_without_its_password(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the password in any frame of the traceback."""
    write("fleet.toml", "here")
    canary = Canary()
    monkeypatch.setenv("AIOVBO_PROXY", f"ftp://u:{canary.watch('c4n4ry-c4n4ry')}@proxy:1")
    with pytest.raises(ConfigError, match="AIOVBO_PROXY") as caught:
        Fleet.from_env()
    canary.assert_absent(caught.value, str(caught.value))


def test_without_platformdirs_the_users_folder_is_left_out(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in an extra: the SDK alone has the variables and the working directory."""
    write("config/aiovbo/fleet.toml", "own")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ConfigError, match="no servers are configured"):
        Fleet.from_env()


def test_the_message_of_a_command_names_options_and_the_users_file(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the words of the command line."""
    unused = write("unused.toml", "unused")
    assert main(["check"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--fleet FILE" in said
    assert str(unused.parent / "config" / "aiovbo" / "fleet.toml") in said.replace(" ", "")
    assert "AIOVBO_URL" not in said


async def test_a_fleet_of_the_environment_queries_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of each, with the login of the variables."""
    async with BackupServer(World(sessions=3)) as backup:
        monkeypatch.setenv("AIOVBO_URL", backup.url)
        monkeypatch.setenv("AIOVBO_USER", backup.username)
        monkeypatch.setenv("VBO_PASSWORD", backup.password)
        monkeypatch.setenv("AIOVBO_CA_FILE", backup.ca_file)
        async with Fleet.from_env() as fleet:
            assert len((await fleet.restore_sessions(started_after=timedelta(days=30))).items) == 3
