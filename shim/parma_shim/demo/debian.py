"""Takes programs out of Debian packages, with the libraries that they need and nothing else.

Nothing is installed: mmdebstrap's `extract` variant resolves and unpacks into a folder.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from parma_api.status import InternalError
from parma_shim.demo.ocilayout import Entry

_LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64")
_LOADER = "lib64/ld-linux-x86-64.so.2"


def extract(packages: Sequence[str], suite: str, into: Path) -> None:
    """Unpacks `packages` and what they depend on into the folder `into`. Raises InternalError."""
    if shutil.which("mmdebstrap") is None:
        raise InternalError("mmdebstrap is missing: run `make env`")
    command = [
        *("mmdebstrap", "--quiet", "--variant=extract", "--mode=root"),
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        *(f"--include={','.join(packages)}", suite, str(into)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InternalError(f"mmdebstrap of {', '.join(packages)} failed: {last}")


def needed(binary: Path) -> tuple[str, ...]:
    """Sonames that an ELF file asks for (its NEEDED entries), as objdump reads them."""
    done = subprocess.run(
        ["objdump", "-p", str(binary)], capture_output=True, text=True, check=False
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return tuple(words[1] for words in lines if len(words) == 2 and words[0] == "NEEDED")


def library_closure(root: Path, programs: Iterable[str]) -> dict[str, Path]:
    """All libraries that `programs` (paths beneath `root`) need: soname -> file."""
    found: dict[str, Path] = {}
    queue = [name for program in programs for name in needed(root / program)]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found[name] = _find_library(root, name)
        queue.extend(needed(found[name]))
    return found


def _find_library(root: Path, name: str) -> Path:
    for folder in _LIBRARY_FOLDERS:
        path = root / folder / name
        if path.exists():
            return path
    raise InternalError(f"library {name} is in none of the unpacked packages")


def library_entries(root: Path, programs: Iterable[str]) -> Iterator[Entry]:
    """Tar entries of a layer that holds the loader and the libraries of `programs`."""
    for folder in ("usr/", "usr/lib/", "usr/lib/x86_64-linux-gnu/", "lib64/"):
        yield Entry(folder)
    yield Entry("lib", link="usr/lib")
    loader = next(path for path in (root / _LOADER, root / "usr" / _LOADER) if path.exists())
    yield Entry(_LOADER, 0o755, loader.read_bytes())
    for name, path in sorted(library_closure(root, programs).items()):
        if not name.startswith("ld-linux"):
            yield Entry(f"usr/lib/x86_64-linux-gnu/{name}", 0o644, path.read_bytes())


def unpacked(packages: Sequence[str], suite: str) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder with `packages` unpacked."""
    folder = tempfile.TemporaryDirectory(prefix="parma-debian-")
    Path(folder.name).chmod(0o755)
    extract(packages, suite, Path(folder.name) / "root")
    return folder
