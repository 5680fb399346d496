"""The command line reaches servers through forward proxies."""

from pathlib import Path

import pytest
from harness import closed_port

from aiovbo._cli._app import main


def test_the_command_line_takes_a_proxy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For addresses, for an inventory, and for `pin`."""
    monkeypatch.setenv("VBO_PASSWORD", "p")
    monkeypatch.setenv("A_TOKEN", "t")
    file = tmp_path / "fleet.toml"
    file.write_text("[servers.a]\nurl = 'vbo1.example'\ncredentials = { token = { env = 'A_TOKEN' } }\n")
    with closed_port() as port:
        proxy = ["--proxy", f"http://127.0.0.1:{port}"]
        for command in (
            ["sessions", "--url", "vbo1.example", "--user", "u", "--retries", "0", *proxy],
            ["sessions", "--fleet", str(file), "--retries", "0", *proxy],
            ["check", "--fleet", str(file), "--retries", "0", *proxy],
            ["pin", "vbo1.example", *proxy],
        ):
            assert main(command) == 4
            assert f"the proxy 127.0.0.1:{port} cannot be reached" in " ".join(
                capsys.readouterr().err.split()
            )
