"""Which servers a fleet may have, and what happens when servers join and leave."""

from dataclasses import dataclass

import pytest

from aiovbo import Bearer, ConfigError, Fleet, Password, Server

LOGIN = Password("TECH\\monitor", "p")
ONE = Server("vbo1", LOGIN, name="one")


@pytest.mark.parametrize("url", ["vbo1", "https://VBO1:4443/", "//vbo1:4443"])
def test_one_server_twice_is_an_error(url: str) -> None:
    """One URL with equal credentials, whatever the name: its sessions would be delivered twice."""
    same = Server(url, Password("TECH\\monitor", "p"), name="two")
    with pytest.raises(ConfigError, match=r"'two' is the same server as 'one'.*equal credentials"):
        Fleet([ONE, same])
    fleet = Fleet([ONE])
    with pytest.raises(ConfigError, match="'two' is the same server as 'one'"):
        fleet.add(same)
    assert list(fleet) == ["one"]


def test_one_url_twice_in_a_list_is_an_error() -> None:
    """Both take the credentials of the fleet."""
    with pytest.raises(ConfigError, match="'vbo1' is the same server as 'vbo1'"):
        Fleet(["vbo1", "https://vbo1:4443"], LOGIN)


@pytest.mark.parametrize("other", [Password("TECH\\monitor", "q"), Password("TECH\\other", "p"), Bearer("t")])
def test_one_url_with_different_credentials_is_two_servers(other: Password | Bearer) -> None:
    """They are two views of one server, as two tenants have."""
    fleet = Fleet([ONE, Server("vbo1", other, name="two")])
    assert list(fleet) == ["one", "two"]


def test_a_server_can_join_again_after_it_was_removed() -> None:
    """Also under another name."""
    fleet = Fleet([ONE])
    fleet.remove("one")
    fleet.add(Server("vbo1", LOGIN, name="two"))
    assert list(fleet) == ["two"]


def test_one_server_twice_in_an_inventory_is_reported_with_all_other_problems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the key of its table."""
    monkeypatch.setenv("VBO_PASSWORD", "p")
    login = {"username": "TECH\\monitor", "password": {"env": "VBO_PASSWORD"}}
    written = {
        "defaults": {"credentials": login},
        "servers": {"a": {"url": "vbo1"}, "b": {"url": "https://vbo1:4443"}, "c": {"url": "vbo2"}},
    }
    with pytest.raises(ConfigError) as raised:
        Fleet.from_mapping({**written, "oddity": 1})
    assert "servers.b: 'b' is the same server as 'a'" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 2


@dataclass
class Vault:
    """Provides a secret; as a dataclass that can be compared, it has no hash."""

    path: str

    async def __call__(self) -> str:
        """The secret."""
        return self.path


def test_providers_without_a_hash_are_compared() -> None:
    """Equal ones are equal credentials."""
    one = Server("vbo1", Password("u", Vault("x")), name="one")
    assert hash(one.credentials) == hash(Password("u", Vault("x")))
    with pytest.raises(ConfigError, match="equal credentials"):
        Fleet([one, Server("vbo1", Password("u", Vault("x")), name="two")])
    fleet = Fleet([one, Server("vbo1", Password("u", Vault("y")), name="two")])
    fleet.remove("one")
    assert list(fleet) == ["two"]
