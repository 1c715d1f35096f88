"""Results kept by the digest of what they were made from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SKIP = {"__pycache__", ".mypy_cache", ".ruff_cache"}
KEEP = 3  # results of one kind; older ones are removed


def source_files(*places: Path) -> list[Path]:
    """Every file of these files and folders, sorted, without what tools leave behind."""
    found: list[Path] = []
    for place in places:
        if place.is_file():
            found.append(place)
        for folder, names, files in os.walk(place):
            names[:] = [name for name in names if name not in _SKIP]
            found += [Path(folder) / name for name in files if not name.endswith(".pyc")]
    return sorted(found)


def digest_files(files: Iterable[Path], base: Path, *extra: str) -> str:
    """A digest over names (relative to base), the executable bit, contents, and some texts."""
    total = hashlib.sha256()
    for path in files:
        runs = "x" if path.stat().st_mode & 0o100 else "-"
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(base)} {runs} {content}\n".encode())
    for text in extra:
        total.update(f"= {text}\n".encode())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """One build at a time in this cache; another one waits."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def fresh(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` if all goes well and vanishes if not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as work:
        made = Path(work) / "made"
        made.mkdir()
        yield made
        made.rename(target)


def point(link: Path, target: Path) -> None:
    """Makes `link` a symbolic link to a neighbour, at once."""
    made = link.with_name(f".{link.name}.{os.getpid()}")
    made.symlink_to(target.name)
    made.replace(link)


def prune(folder: Path, keep: Path) -> None:
    """Removes all but the newest results; `keep` stays in any case."""
    results = [
        p for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and p.name[0] != "."
    ]
    for path in sorted(results, key=lambda p: p.stat().st_mtime, reverse=True)[KEEP:]:
        if path != keep:
            shutil.rmtree(path)
