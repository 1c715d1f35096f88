"""Python packages of the guest: fetched by pip against a hash-pinned list, unpacked as they are."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

from .apt import run
from .config import BuildError

PYTHON = "3.13"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")


def fetch(requirements: Path, store: Path) -> list[Path]:
    """The wheels that the list pins, downloaded unless `store` has them all."""
    done = store / "complete"
    if not done.exists():
        store.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes"]
        command += ["--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp"]
        command += [part for tag in _PLATFORMS for part in ("--platform", tag)]
        run([*command, "-d", str(store), "-r", str(requirements)])
        done.touch()
    return sorted(store.glob("*.whl"))


def unpack(wheels: list[Path], site: Path) -> None:
    """Unpacks the wheels into one folder; BuildError if two bring the same file."""
    site.mkdir(parents=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                parts = Path(member.filename).parts
                if member.is_dir() or parts[0].endswith(".data"):
                    continue  # scripts and headers
                target = site.joinpath(*parts)
                if ".." in parts or target.exists():
                    raise BuildError(f"{wheel.name}: unexpected file {member.filename}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))


def compile_lock(source: Path, target: Path) -> None:
    """Renews the hash-pinned list from the names and versions in `source`."""
    with tempfile.TemporaryDirectory() as work:
        fresh = Path(work) / "requirements.lock"
        command = [sys.executable, "-m", "uv", "pip", "compile", "-q", "--generate-hashes"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate"]
        command += ["--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
        run([*command, "--only-binary", ":all:", str(source), "-o", str(fresh)])
        text = fresh.read_text()
    target.write_text(
        "# The guest's Python packages; written by `build.py --refresh-lock`.\n" + text
    )
