"""Where runs of the command keep tokens: in a private folder of the user, or nowhere.

Must not know what is stored.
"""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from aiovbo import FileTokenStore

log = logging.getLogger("aiovbo.cli")

_PRIVATE = 0o700
_HAS_MODES = os.name == "posix"


def shared_store() -> FileTokenStore | None:
    """The token store that runs of the command share; None without a private folder, and on Windows."""
    if not _HAS_MODES:
        return None
    for folder in _folders():
        try:
            folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            found = folder.lstat()
        except OSError as error:
            log.info("no tokens are stored in %s: %s", folder, error.strerror)
            continue
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            log.warning("no tokens are stored in %s: it is not a folder of this user", folder)
        elif stat.S_IMODE(found.st_mode) != _PRIVATE:
            log.warning("no tokens are stored in %s: its mode must be 0700 (chmod 700 it)", folder)
        else:
            return FileTokenStore(folder / "tokens")
    return None


def _folders() -> Iterator[Path]:
    """The runtime folder, which ends with the user's session, and the state folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # Only its owner may create it.
    if Path(runtime).is_absolute() and Path(runtime).is_dir():
        yield Path(runtime, "aiovbo")
    state = os.environ.get("XDG_STATE_HOME", "")
    home = os.path.expanduser("~")  # pathlib raises where there is no home
    if Path(state).is_absolute():
        yield Path(state, "aiovbo")
    elif Path(home).is_absolute():
        yield Path(home, ".local", "state", "aiovbo")
