"""The AmdSev build of OVMF, which measures kernel, initrd and command line: Debian's, unpacked into the cache.

Debian has it in suites newer than 13 (package `ovmf-amdsev`); the package is pinned by hash in ovmf_amdsev.lock, which
`python -m tests.tools.ovmf_amdsev --refresh-lock` renews. `python -m tests.tools.ovmf_amdsev` prints where the file is.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent.parent
_LOCK = Path(__file__).with_name("ovmf_amdsev.lock")
sys.path.insert(0, str(_ROOT / "guest/image"))

from uvmbuild import apt, lock  # noqa: E402
from uvmbuild.config import BuildError, load  # noqa: E402

SUITE = "forky"
FILE = "usr/share/ovmf/OVMF.amdsev.fd"


def ovmf_amdsev(cache: Path) -> Path:
    """The firmware file; fetched and unpacked on first use (1 MB). Raises BuildError without a mirror."""
    pinned = lock.parse(_LOCK.read_text())
    tree = cache / "ovmf-amdsev" / pinned.debs[0].sha256[:16]
    file = tree / FILE
    if file.exists():
        return file
    store = cache / "debs"
    try:
        apt.fetch(pinned, store)
    except BuildError as error:
        print(f"OVMF AmdSev: {error}; taking what the mirror has now", file=sys.stderr)
        pinned = _resolve()
        apt.fetch(pinned, store)
    part = tree.with_name(f"{tree.name}.{os.getpid()}")
    part.mkdir(parents=True)
    apt.unpack_alone(pinned.debs, store, part)
    shutil.rmtree(tree, ignore_errors=True)
    part.rename(tree)
    if not file.exists():
        found = sorted(str(path.relative_to(tree)) for path in tree.rglob("*.fd"))
        raise BuildError(f"ovmf-amdsev holds no {FILE}, but {found}: change FILE here")
    return file


def _resolve() -> lock.Lock:
    config = load(_ROOT / "guest/image/image.toml")
    newer = dataclasses.replace(config, suite=SUITE, sets={"ovmf": ("ovmf-amdsev",)})
    return apt.resolve(newer, apt.host_mirrors())


def _main(arguments: list[str]) -> str:
    if arguments == ["--refresh-lock"]:
        text = lock.render(_resolve())
        written = "of the AmdSev firmware; written by `ovmf_amdsev.py"
        _LOCK.write_text(text.replace("of the utility VM; written by `build.py", written))
        return str(_LOCK)
    if arguments:
        sys.exit("usage: python -m tests.tools.ovmf_amdsev [--refresh-lock]")
    home = Path.home() / ".cache/parma"
    return str(ovmf_amdsev(Path(os.environ.get("PARMA_CACHE") or home)))


if __name__ == "__main__":
    print(_main(sys.argv[1:]))
