"""Hints to install an extra: a command that pip can carry out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import aiovbo
from aiovbo._extras import install_command

SOURCE = Path(aiovbo.__file__).parents[1]


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'aiovbo[cli]'"),
        ({}, "pip install 'aiovbo[cli]'"),
        ("not JSON", "pip install 'aiovbo[cli]'"),
        ({"url": "file:///srv/my%20code", "dir_info": {}}, "pip install '/srv/my code[cli]'"),
        ({"url": "file:///srv/code", "dir_info": {"editable": True}}, "pip install -e '/srv/code[cli]'"),
        (
            {"url": "file:///srv/aiovbo-1.0-py3-none-any.whl", "archive_info": {}},
            "pip install 'aiovbo[cli] @ file:///srv/aiovbo-1.0-py3-none-any.whl'",
        ),
        (
            {"url": "https://me:secret@example.com/aiovbo.tar.gz", "archive_info": {}, "subdirectory": "py"},
            "pip install 'aiovbo[cli] @ https://example.com/aiovbo.tar.gz#subdirectory=py'",
        ),
        (
            {
                "url": "ssh://git@example.com/aiovbo.git",
                "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": "1" * 40},
            },
            "pip install 'aiovbo[cli] @ git+ssh://git@example.com/aiovbo.git@main'",
        ),
        (
            {"url": "https://example.com/aiovbo.git", "vcs_info": {"vcs": "git", "commit_id": "1" * 40}},
            f"pip install 'aiovbo[cli] @ git+https://example.com/aiovbo.git@{'1' * 40}'",
        ),
    ],
)
def test_an_extra_is_installed_from_where_the_installed_copy_came_from(
    origin: object, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory, an archive, a repository, or a package index; never with a password."""
    metadata = tmp_path / "aiovbo-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: aiovbo\nVersion: 1.0\n", encoding="utf-8"
    )
    if origin is not None:
        text = origin if isinstance(origin, str) else json.dumps(origin)
        (metadata / "direct_url.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert install_command("cli") == command


def test_a_copy_that_is_not_installed_is_installed_from_its_source() -> None:
    """As on a path that only PYTHONPATH names."""
    code = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]; "
        f"sys.path.insert(0, {str(SOURCE)!r}); from aiovbo._extras import install_command; "
        "print(install_command('cli'))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"pip install '{SOURCE}[cli]'\n"
