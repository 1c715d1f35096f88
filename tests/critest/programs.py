"""The suite's program and the busybox of its images, each built once into the cache.

critest comes from its pinned Go module (.ci/critest). busybox comes from the source archive of Debian, pinned by hash:
the specs were written against its default configuration, in which `ls` is a file that can be masked and there are
`ipcs` and `pgrep`; Debian's own build runs such programs inside the shell and lacks those two.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / ".ci" / "critest"
PACKAGE = "sigs.k8s.io/cri-tools/cmd/critest"
_BUSYBOX = "busybox_1.35.0.orig.tar.bz2"
_BUSYBOX_SHA256 = "faeeb244c35a348a334f4a59e44626ee870fb07b6884d68c10ae8bc19f83a694"
_SWITCHES = {"CONFIG_STATIC": "y", "CONFIG_TC": "n"}
"""Changes of busybox's default configuration; `tc` does not build with newer kernel headers."""
_SAME_BYTES = {"KCONFIG_NOTIMESTAMP": "1", "LC_ALL": "C.UTF-8"}
_NO_NEW_PRIVS = """\
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\\n", (int)geteuid()); return 0; }
"""
_GO = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}


class BuildError(Exception):
    """A program could not be built; the message is the end of what the tool said."""


def version() -> str:
    """The version of cri-tools that go.mod pins, such as `v1.34.0`."""
    found = re.search(r"sigs\.k8s\.io/cri-tools (v\S+)", (MODULE / "go.mod").read_text())
    assert found, "go.mod names no cri-tools"
    return found.group(1)


def critest(cache: Path) -> Path:
    """The suite, built when these inputs were never built before (half a minute). Raises BuildError."""
    sources = [MODULE / name for name in ("go.mod", "go.sum", "tools.go")]
    result = cache / "critest" / _key(*(path.read_bytes() for path in sources)) / "critest"
    if not result.exists():
        print("critest: building it from its Go module", file=sys.stderr)
        with _fresh(result) as part:
            command = [_find_go(), "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", str(part)]
            _run([*command, PACKAGE], MODULE, _GO)
    return result


def busybox(cache: Path) -> Path:
    """A static busybox with every applet of its default configuration (a minute). Raises BuildError."""
    key = _key(_BUSYBOX_SHA256.encode(), repr((_SWITCHES, _SAME_BYTES)).encode())
    result = cache / "critest" / key / "busybox"
    if not result.exists():
        print("critest: building busybox from its source archive", file=sys.stderr)
        with _fresh(result) as part, tempfile.TemporaryDirectory(prefix="parma-busybox-") as name:
            _build_busybox(Path(name), part)
    return result


def no_new_privs(cache: Path) -> Path:
    """A static program that prints its effective user. Raises BuildError."""
    result = cache / "critest" / _key(_NO_NEW_PRIVS.encode()) / "nnp"
    if not result.exists():
        with _fresh(result) as part:
            source = part.with_suffix(".c")
            source.write_text(_NO_NEW_PRIVS)
            _run(["musl-gcc", "-static", "-Os", "-s", "-o", str(part), str(source)], part.parent)
    return result


def _build_busybox(work: Path, part: Path) -> None:
    archive = work / _BUSYBOX
    helper = ["/usr/lib/apt/apt-helper", "-q", "-o", "APT::Sandbox::User=root", "download-file"]
    place = f"{_mirror()}/pool/main/b/busybox/{_BUSYBOX}"
    _run([*helper, place, str(archive), f"SHA256:{_BUSYBOX_SHA256}"], work)
    with tarfile.open(archive) as packed:
        packed.extractall(work, filter="data")
    tree = next(path for path in work.iterdir() if path.is_dir())
    _run(["make", "defconfig"], tree, _SAME_BYTES)
    config = (tree / ".config").read_text()
    for switch, value in _SWITCHES.items():
        line = f"{switch}=y" if value == "y" else f"# {switch} is not set"
        config = re.sub(rf"^(# )?{switch}[ =].*$", line, config, flags=re.MULTILINE)
    (tree / ".config").write_text(config)
    _run(["sh", "-c", 'yes "" | make oldconfig'], tree, _SAME_BYTES)
    _run(["nice", "make", f"-j{os.cpu_count() or 1}", "busybox"], tree, _SAME_BYTES)
    shutil.copy(tree / "busybox", part)


def _mirror() -> str:
    sys.path.insert(0, str(ROOT / "guest/image"))
    from uvmbuild import apt

    return apt.host_mirrors().bases["debian"]


def _find_go() -> str:
    finder = (
        "import sys; sys.path.insert(0, '.ci/opa'); import build; "
        "print(build.find_go(build.pinned_toolchain()))"
    )
    return _run([sys.executable, "-c", finder], ROOT).strip()


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[
        :16
    ]


class _fresh:
    """A path beside the result that takes its place when all went well."""

    def __init__(self, result: Path) -> None:
        self._result = result

    def __enter__(self) -> Path:
        self._result.parent.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(dir=self._result.parent)
        return Path(self._folder.name) / self._result.name

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            (Path(self._folder.name) / self._result.name).replace(self._result)
        self._folder.cleanup()


def _run(command: Sequence[str], cwd: Path, extra: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(extra or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        tail = " | ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-4:])
        raise BuildError(f"{Path(command[0]).name} failed ({done.returncode}): {tail}")
    return done.stdout
