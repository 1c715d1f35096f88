"""containerd of newer Debian suites (1.7 and 2.x): packages unpacked into the cache, run from there.

Pinned by hash in containerd_SUITE.lock; `python -m tests.tools.newer_containerd --refresh-lock` renews them. Fetching
is the UVM builder's, as for `newer_qemu`; when a mirror has moved on, what it has now is taken and a line says so.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

from tests.tools.newer_qemu import BuildError, apt, load, lock

_ROOT = Path(__file__).resolve().parent.parent.parent
SUITES = ("trixie", "forky")
_NAMES = ("containerd", "libc6", "libseccomp2")
"""containerd and what it is linked with; runc and the rest are the host's."""
_PROGRAMS = ("containerd", "ctr")
_WRAPPER = """#!/bin/sh
exec {tree}/usr/lib64/ld-linux-x86-64.so.2 --library-path {tree}/usr/lib/x86_64-linux-gnu {program} "$@"
"""


def newer_containerd(cache: Path, suite: str) -> Path:
    """The folder of `containerd` and `ctr`; unpacked on first use (30 MB). Raises BuildError without a mirror."""
    pinned = lock.parse(_lock_file(suite).read_text())
    tree = cache / "newer-containerd" / f"{suite}-{pinned.snapshot}"
    folder = tree / "run"
    if folder.exists():
        return folder
    store = cache / "debs"
    try:
        apt.fetch(pinned, store)
    except BuildError as error:
        print(f"newer containerd: {error}; taking what the mirror has now", file=sys.stderr)
        pinned = _resolve(suite)
        apt.fetch(pinned, store)
    part = tree.with_name(f"{tree.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    apt.unpack_alone(pinned.debs, store, part)
    _write_programs(part, tree)
    shutil.rmtree(tree, ignore_errors=True)
    part.rename(tree)
    return folder


def _write_programs(part: Path, tree: Path) -> None:
    (part / "run").mkdir()
    for name in _PROGRAMS:
        wrapper = part / "run" / name
        wrapper.write_text(_WRAPPER.format(tree=tree, program=tree / "usr/bin" / name))
        wrapper.chmod(0o755)


def _lock_file(suite: str) -> Path:
    return Path(__file__).with_name(f"containerd_{suite}.lock")


def _resolve(suite: str) -> lock.Lock:
    config = dataclasses.replace(
        load(_ROOT / "guest/image/image.toml"), suite=suite, sets={"containerd": _NAMES}
    )
    found = apt.resolve(config, apt.host_mirrors())
    return dataclasses.replace(found, debs=tuple(deb for deb in found.debs if deb.name in _NAMES))


if __name__ == "__main__":
    if sys.argv[1:] != ["--refresh-lock"]:
        sys.exit("usage: python -m tests.tools.newer_containerd --refresh-lock")
    for chosen in SUITES:
        text = lock.render(_resolve(chosen)).replace(
            "of the utility VM; written by `build.py",
            f"of {chosen}'s containerd; written by `newer_containerd.py",
        )
        _lock_file(chosen).write_text(text)
