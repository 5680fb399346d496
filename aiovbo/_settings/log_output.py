"""Log lines on standard error, for programs that set up no logging of their own.

Uses nothing of the SDK. The variable `AIOVBO_LOG` and the command line's `-v` switch it on.
"""

import logging
import os
import sys

VARIABLE = "AIOVBO_LOG"

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _StandardErrorHandler(logging.Handler):
    """Writes to what standard error is at that time, unless the application has handlers of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        # The application's handlers get the record too: it must not appear twice.
        if logging.getLogger().handlers:
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def show_log(level: int) -> None:
    """Show the SDK's log lines of this level and above; a second call changes the level."""
    logger = logging.getLogger("aiovbo")
    logger.setLevel(level)
    if not any(isinstance(handler, _StandardErrorHandler) for handler in logger.handlers):
        handler = _StandardErrorHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        logger.addHandler(handler)


def show_log_of_environment() -> None:
    """Do what the variable `AIOVBO_LOG` says: debug, info, warning or error."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return
    if text.upper() in _LEVELS:
        show_log(getattr(logging, text.upper()))
    else:
        show_log(logging.WARNING)
        log = logging.getLogger("aiovbo")
        log.warning("the variable %s must be debug, info, warning or error, not %r", VARIABLE, text[:40])
