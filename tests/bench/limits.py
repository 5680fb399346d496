"""Limits and counters that the operating system has for a process. Knows nothing of what is measured."""

import os
import platform
import resource
from pathlib import Path


def raise_file_limit() -> int:
    """As many open files as this user may have at all; a thousand servers are a thousand connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def resident() -> int:
    """Bytes of memory that this process really has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def machine() -> str:
    """The machine in a line."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in facts if line.startswith("model name")]
    return f"{models[0] if models else 'unknown processor'}, {os.cpu_count()} cores, {platform.system()}"
