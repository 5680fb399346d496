"""A lock beside a file, for one process at a time: the file itself stays readable for others.

Knows files and the operating system's locks. Blocks: call it away from the event loop.
"""

import os
import sys
from contextlib import suppress

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """Held until it is released, or until the process ends, however that happens."""

    def __init__(self, path: str) -> None:
        """The lock of the file `path`: a file beside it, with `-lock` after its name, while it is held."""
        self._path = f"{path}-lock"
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Whether it is held now; False where another holder has it.

        Raises: OSError where the directory does not exist, or cannot be written.
        """
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(descriptor)
            except OSError:
                os.close(descriptor)
                return False
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                    self._descriptor = descriptor
                    return True
            # The holder before has deleted the file in the meantime.
            os.close(descriptor)

    def release(self) -> None:
        """Let others have it; safe to repeat."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # Before it is closed, so that no other holder's file is deleted. Windows deletes no open file.
            with suppress(OSError):
                os.unlink(self._path)
            os.close(descriptor)

    def leave_to_parent(self) -> None:
        """In a forked process: the parent holds it alone."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
