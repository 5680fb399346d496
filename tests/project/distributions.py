"""Checks a wheel and an sdist, and lists what to upload: name, size, SHA-256. Exits with 1 if they are wrong.

Run by `nox -s release` with the folder that contains both.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def expected_modules() -> set[str]:
    """The files of the package, as the wheel must contain them."""
    files = (path for path in (ROOT / "aiovbo").rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def version() -> str:
    """The version that the package states."""
    text = (ROOT / "aiovbo" / "_settings" / "version.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'__version__ = "(.+)"', text)
    return str(found)


def wheel_problems(wheel: Path) -> list[str]:
    """What the wheel lacks, what it should not contain, and what its metadata lacks."""
    prefix = f"aiovbo-{version()}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
        headers = HeaderParser().parsestr(archive.read(f"{prefix}/METADATA").decode())
        problems = [
            f"{name} differs"
            for name in expected_modules() & found
            if archive.read(name) != (ROOT / name).read_bytes()
        ]
    expected = expected_modules() | {f"{prefix}/{name}" for name in METADATA}
    problems += [f"{name} is missing" for name in sorted(expected - found)]
    problems += [f"{name} should not be there" for name in sorted(found - expected)]
    if headers["Version"] != version():
        problems.append(f"its version is {headers['Version']}")
    if ".dev" in version():
        problems.append(f"{version()} is not a version to release")
    problems += [
        f"its metadata has no {name}"
        for name in ("Requires-Python", "License-Expression", "Description-Content-Type")
        if not headers[name]
    ]
    return [f"{wheel.name}: {problem}" for problem in problems]


def sdist_problems(sdist: Path) -> list[str]:
    """What the sdist lacks to be tested, and to be built again."""
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    expected = expected_modules() | {
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "noxfile.py",
        "pyproject.toml",
        "tests/conftest.py",
        "docs/conf.py",
        "RELEASING.md",
        "examples/exporter.py",
        "examples/monitoring/aiovbo-rules.yml",
    }
    return [f"{sdist.name}: {name} is missing" for name in sorted(expected - found)]


def main(folder: Path) -> int:
    """The exit status."""
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    problems = wheel_problems(wheel) + sdist_problems(sdist)
    if problems:
        sys.stdout.writelines(f"{problem}\n" for problem in problems)
        return 1
    sys.stdout.write(
        f"{wheel.name} contains the {len(expected_modules())} files of the package\n\nTo upload:\n"
    )
    for file in (wheel, sdist):
        data = file.read_bytes()
        sys.stdout.write(f"{file}  {len(data):,} bytes  sha256:{hashlib.sha256(data).hexdigest()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
