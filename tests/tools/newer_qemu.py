"""A newer QEMU than the host's, which knows `sev-snp-guest`: Debian packages unpacked into the cache, run from there.

The packages are pinned by hash in newer_qemu.lock; `python -m tests.tools.newer_qemu --refresh-lock` renews it.
Fetching is the UVM builder's: apt's own downloader, the machine's own mirrors. When a mirror has moved on, the packages
that it has now are taken (apt checks their signatures) and a line on stderr says so.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent.parent
_LOCK = Path(__file__).with_name("newer_qemu.lock")
sys.path.insert(0, str(_ROOT / "guest/image"))

from uvmbuild import apt, lock  # noqa: E402
from uvmbuild.config import BuildError, load  # noqa: E402

_WRAPPER = """#!/bin/sh
exec {tree}/usr/lib64/ld-linux-x86-64.so.2 --library-path {tree}/usr/lib/x86_64-linux-gnu \\
  {tree}/usr/bin/qemu-system-x86_64 -L {tree}/usr/share/qemu -L {tree}/usr/share/seabios "$@"
"""


def newer_qemu(cache: Path) -> Path:
    """A program that runs it; unpacked on first use (40 MB). Raises BuildError without a mirror."""
    pinned = lock.parse(_LOCK.read_text())
    tree = cache / "newer-qemu" / pinned.snapshot
    program = tree / "qemu-system-x86_64"
    if program.exists():
        return program
    store = cache / "debs"
    try:
        apt.fetch(pinned, store)
    except BuildError as error:
        print(f"newer QEMU: {error}; taking what the mirror has now", file=sys.stderr)
        pinned = _resolve()
        apt.fetch(pinned, store)
    part = tree.with_name(f"{tree.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    apt.unpack_alone(pinned.debs, store, part)
    (part / program.name).write_text(_WRAPPER.format(tree=tree))
    (part / program.name).chmod(0o755)
    shutil.rmtree(tree, ignore_errors=True)
    part.rename(tree)
    return program


def _resolve() -> lock.Lock:
    config = dataclasses.replace(
        load(_ROOT / "guest/image/image.toml"), sets={"qemu": ("qemu-system-x86",)}
    )
    return apt.resolve(config, apt.host_mirrors())


if __name__ == "__main__":
    if sys.argv[1:] != ["--refresh-lock"]:
        sys.exit("usage: python -m tests.tools.newer_qemu --refresh-lock")
    _LOCK.write_text(
        lock.render(_resolve()).replace(
            "of the utility VM; written by `build.py",
            "of the newer QEMU; written by `newer_qemu.py",
        )
    )
