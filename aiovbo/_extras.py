"""How to install an extra: from where the installed copy of aiovbo came from.

Imports nothing of aiovbo, and everything only when it is called.
"""

from typing import Any


def install_command(extra: str) -> str:
    """The command that installs an extra, such as `pip install '/srv/aiovbo[cli]'`.

    Source: PyPA specification "Recording the Direct URL Origin of installed distributions", read 2026-11-27.
    """
    import shlex  # only where something is missing

    requirement, is_editable = _requirement(extra)
    return f"pip install {'-e ' if is_editable else ''}{shlex.quote(requirement)}"


def _requirement(extra: str) -> tuple[str, bool]:
    """What pip can install the extra from, and whether as an editable copy."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from pathlib import Path
    from urllib.parse import urlsplit, urlunsplit
    from urllib.request import url2pathname

    try:
        origin: dict[str, Any] = json.loads(distribution("aiovbo").read_text("direct_url.json") or "{}")
        url = urlsplit(str(origin.get("url", "")))
        folder = origin.get("dir_info")
        vcs = origin.get("vcs_info")
        subdirectory = origin.get("subdirectory")
    except PackageNotFoundError:
        source = Path(__file__).resolve().parents[1]
        # Run from its source, without an installation.
        return f"{source}[{extra}]" if (source / "pyproject.toml").exists() else f"aiovbo[{extra}]", False
    except (OSError, ValueError, AttributeError):
        return f"aiovbo[{extra}]", False
    if not url.scheme:
        # It came from a package index.
        return f"aiovbo[{extra}]", False
    if folder is not None:
        return f"{url2pathname(url.path)}[{extra}]", folder.get("editable") is True
    user, _, host = url.netloc.rpartition("@")
    # Only the user name of ssh is part of the address; others, and passwords, are secrets.
    keeps_user = url.scheme.endswith("ssh") and ":" not in user
    address = urlunsplit(url if keeps_user else url._replace(netloc=host))
    if vcs is not None:
        address = f"{vcs['vcs']}+{address}@{vcs.get('requested_revision') or vcs['commit_id']}"
    return f"aiovbo[{extra}] @ {address}{f'#subdirectory={subdirectory}' if subdirectory else ''}", False
