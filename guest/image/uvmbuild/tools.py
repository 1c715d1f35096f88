"""The build's own tools, from the same lock: compiler and mkfs, so that the host's do not matter."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from .apt import run
from .config import Config

_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_CFLAGS = (
    "-static",
    "-Os",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-s",
    "-Wl,--build-id=none",
)
_KERNEL_HEADERS = ("-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu")


def finish_tree(tools: Path) -> None:
    """Makes the unpacked packages a tree that programs run in."""
    for name, target in _LINKS.items():
        if not (tools / name).is_symlink():
            (tools / name).symlink_to(target)
    if not (tools / "usr/bin/sh").exists():
        (tools / "usr/bin/sh").symlink_to("dash")
    (tools / "build").mkdir()


def compile_init(tools: Path, sources: Path) -> bytes:
    """The static init, compiled against musl."""
    with tempfile.TemporaryDirectory(dir=tools / "build") as work:
        inside = f"/build/{Path(work).name}"
        names = sorted(path.name for path in sources.glob("*.c"))
        for path in sources.glob("*.[ch]"):
            shutil.copy(path, work)
        command = ["chroot", str(tools), "/usr/bin/musl-gcc", *_CFLAGS, *_KERNEL_HEADERS]
        # The folder's random name must not enter the result.
        command += [f"-ffile-prefix-map={inside}=.", "-o", f"{inside}/init.out"]
        run([*command, *(f"{inside}/{name}" for name in names)])
        return (Path(work) / "init.out").read_bytes()


def make_erofs(tools: Path, root: Path, image: Path, config: Config) -> None:
    """The compressed file system, a function of the tree's names, modes and contents."""
    loader = [str(tools / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path"]
    program = [str(tools / "usr/lib/x86_64-linux-gnu"), str(tools / "usr/bin/mkfs.erofs")]
    options = ["-d0", "--quiet", "-zlz4hc,6", "-C65536", f"-T{config.epoch}", "--all-root", "-x-1"]
    options += ["--workers=1", "-U", config.uuid]
    image.unlink(missing_ok=True)
    run([*loader, *program, *options, str(image), str(root)])
