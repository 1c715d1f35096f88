#!/usr/bin/env python3
"""Builds the image of the DaemonSet that installs Parma on nodes: an archive, without a docker daemon.

    build.py [--variant stub|release|both]   prints the archive's path; its image is parma.example/node:VERSION
    build.py --mark TEXT                     another version of the same content, to try an upgrade with
    build.py --refresh-lock                  renews requirements.lock from pyproject.toml

The image holds one folder, /opt/parma/versions/VERSION, which the DaemonSet copies to the node under the same path:
Python, QEMU, their libraries, Parma's host side and the utility VM's image. It needs nothing of the node's own but a
kernel, so it runs on any distribution. VERSION is a digest of everything that goes in. Results are kept in
`${PARMA_CACHE:-~/.cache/parma}/node/`. Needs mmdebstrap and patchelf; the VM images come from `make uvm`.
"""

# ruff: noqa: T201 (a build script talks on the terminal)
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import payload
from archive import write_image

from parma_api.status import ApiError

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[2]
LOCK = HERE / "requirements.lock"
IMAGE = "parma.example/node"
KEPT = 3
"""Archives that stay in the cache."""


def refresh_lock() -> None:
    """Resolves the names of pyproject.toml anew, for the payload's Python."""
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["shim"]]
    command = [
        "-m",
        "uv",
        "pip",
        "compile",
        "-q",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
    ]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--only-binary", ":all:"]
    command += ["--python-version", payload.PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
    done = subprocess.run(
        [sys.executable, *command, "-"],
        input="\n".join(wanted),
        capture_output=True,
        text=True,
        check=True,
    )
    first = "# The node payload's Python packages; written by `build.py --refresh-lock`.\n"
    LOCK.write_text(first + done.stdout)


def build(variants: tuple[str, ...], mark: str = "") -> Path:
    """The archive, made now if these inputs were never built before."""
    cache = Path(os.environ.get("PARMA_CACHE") or Path.home() / ".cache" / "parma")
    uvm = {name: (cache / "uvm" / name / "current").resolve() for name in variants}
    for name, folder in uvm.items():
        if not (folder / "image.json").exists():
            raise SystemExit(f"error: there is no {name} image of the utility VM: run `make uvm`")
    inputs = payload.Inputs.read(TREE, LOCK, uvm, mark)
    home = cache / "node"
    archive = home / f"node-{inputs.version}.tar"
    if not archive.exists():
        print(f"node image: building {inputs.version}", file=sys.stderr)
        home.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=home, prefix="build-"))
        try:
            payload.assemble(inputs, payload.debian_packages(home), work / "root")
            write_image(work / "root", f"{IMAGE}:{inputs.version}", inputs.version, archive)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        _forget_old(home)
    return archive


def _forget_old(home: Path) -> None:
    """Each takes more than 100 MB, and every change of the source makes one."""
    archives = sorted(home.glob("node-*.tar"), key=lambda path: path.stat().st_mtime)
    for path in archives[:-KEPT]:
        path.unlink()


def main() -> int:
    """Runs the command; 0 done, 1 failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=("stub", "release", "both"), default="stub")
    parser.add_argument("--mark", default="", help="enters the version, and nothing else")
    parser.add_argument("--refresh-lock", action="store_true", help="renew requirements.lock")
    arguments = parser.parse_args()
    try:
        if arguments.refresh_lock:
            refresh_lock()
            return 0
        both = arguments.variant == "both"
        variants = ("release", "stub") if both else (arguments.variant,)
        print(build(variants, arguments.mark))
    except (OSError, subprocess.CalledProcessError, payload.PayloadError, ApiError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
