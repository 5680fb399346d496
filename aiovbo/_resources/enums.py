"""Texts of the API that say one of a few things: open enums, which keep what they do not know.

Knows the documented values; knows no resources.
"""

from enum import StrEnum
from typing import Self


class OpenEnum(StrEnum):
    """A set of texts that may grow: known members, and any other text kept as it came.

    A `match` over one needs a `case _:`, which type checkers do not require: to them an enum is closed.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        folded = value.casefold()
        for known in cls:
            if known.value.casefold() == folded:
                return known
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member

    def __reduce_ex__(self, proto: object) -> tuple[type[Self], tuple[str]]:
        # Python before 3.11.4 would look it up by its name, which finds the known members only.
        return type(self), (self._value_,)

    @property
    def is_known(self) -> bool:
        """Whether this is one of the documented values."""
        return self._name_ in type(self).__members__


class RestoreSessionType(OpenEnum):
    """What is being restored.

    Source: schema RESTRestoreSession, v6 to v8, read 2026-11-23.
    """

    VEX = "Vex"
    """Exchange."""
    VEOD = "Veod"
    """OneDrive for Business."""
    VESP = "Vesp"
    """SharePoint."""
    VET = "Vet"
    """Teams; since v5."""


class RestoreSessionState(OpenEnum):
    """How far a restore session has come.

    Source: help center, "Getting Restore Sessions", v4; schema RESTRestoreSession, v8; read 2026-11-23.
    """

    STARTING = "Starting"
    WORKING = "Working"
    STOPPING = "Stopping"
    STOPPED = "Stopped"


class RestoreSessionResult(OpenEnum):
    """How a restore session went; an outcome only once the session has ended.

    Source: schema RESTRestoreSession, v6 to v8, read 2026-11-23.
    """

    SUCCESS = "Success"
    WARNING = "Warning"
    FAILED = "Failed"


class JobSessionStatus(OpenEnum):
    """How far a run of a backup job has come, or how it went.

    Source: schema RESTJobSession, v6 to v8, read 2026-11-27.
    """

    STOPPED = "Stopped"
    RUNNING = "Running"
    SUCCESS = "Success"
    FAILED = "Failed"
    WARNING = "Warning"
    NOT_CONFIGURED = "NotConfigured"
    DISCONNECTED = "Disconnected"
    QUEUED = "Queued"


class RestoreSessionEventType(OpenEnum):
    """What an event of a restore session is about.

    Source: schema RESTRestoreSessionEvent, v6 to v8, read 2026-11-23.
    """

    NONE = "None"
    SAVE = "Save"
    EXPORT = "Export"
    SEND = "Send"
    RESTORE = "Restore"
    VIEW = "View"


class RestoreSessionEventStatus(OpenEnum):
    """How far an event of a restore session has come, or how it went.

    Source: schema RESTRestoreSessionEvent, v6 to v8, read 2026-11-23.
    """

    RUNNING = "Running"
    SUCCESS = "Success"
    WARNING = "Warning"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    SKIPPED = "Skipped"
