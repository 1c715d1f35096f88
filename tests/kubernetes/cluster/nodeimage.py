"""The image that kind starts as its node, in our dockerd under a name that says what it was made from."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import docker, noderoot, systemimages
from .home import ClusterError, Home, digest, run, step
from .programs import COREDNS, ETCD, KUBERNETES, command_folder, ensure

REPOSITORY = "parma.example/kind-node"
_SOURCES = ("nodeimage.py", "noderoot.py", "systemimages.py")
_CHANGES = ("ENV container=docker", 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]')


def ensure_image(home: Home) -> str:
    """The image's name; built when our dockerd has it not. Raises ClusterError."""
    programs = [str(ensure(home, program)) for program in (KUBERNETES, ETCD, COREDNS)]
    sources = [Path(__file__).with_name(name) for name in _SOURCES]
    name = f"{REPOSITORY}:{digest([*sources, *programs])}"
    if not _has(home, name):
        with step("node image"):
            _build(home, name)
    return name


def _has(home: Home, name: str) -> bool:
    try:
        run(["docker", "image", "inspect", name], env=docker.environment(home), timeout=30)
    except ClusterError:
        return False
    return True


def _build(home: Home, name: str) -> None:
    commands = command_folder(home)
    work = Path(tempfile.mkdtemp(dir=home.root, prefix="node-"))
    work.chmod(0o755)
    try:
        root = work / "root"
        root.mkdir()
        noderoot.assemble(home, root, commands)
        systemimages.preload(home, root, commands, work)
        _import(home, root, name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _import(home: Home, root: Path, name: str) -> None:
    """The tree becomes an image of one layer; no tar of it is written beside."""
    changes = [word for change in _CHANGES for word in ("--change", change)]
    packing = [
        "tar",
        "-C",
        str(root),
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-cf",
        "-",
        ".",
    ]
    with subprocess.Popen(packing, stdout=subprocess.PIPE) as tar:
        done = subprocess.run(
            ["docker", "import", *changes, "-", name],
            stdin=tar.stdout,
            env={**os.environ, **docker.environment(home)},
            capture_output=True,
            check=False,
        )
    if done.returncode != 0 or tar.returncode != 0:
        raise ClusterError(
            f"docker import of the node image failed: {done.stderr.decode().strip()}"
        )
