"""The payload on the node: one folder for each version, a link that says which one new pods get.

    /opt/parma/versions/<digits>/                  whole, or not there
    /usr/local/bin/containerd-shim-parma-v2        link to the current version's
    /var/lib/parma, /run/parma                     layers and pods' state, made by the shims

Pods keep the version that they were started with: their processes name it in their command lines, and a version that
is named stays.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from parma_api.status import FailedPreconditionError
from parma_shim.node.host import NodeHost

VERSIONS = "/opt/parma/versions"
SHIM = "containerd-shim-parma-v2"
LINK = f"/usr/local/bin/{SHIM}"
STATE = ("/var/lib/parma", "/run/parma")
_NAME = re.compile(r"[0-9a-f]{16}")
_NAMED = re.compile(rb"/opt/parma/versions/([0-9a-f]{16})/")


def put(host: NodeHost, payload: Path) -> None:
    """Copies a version to the node unless it is there, and makes it the current one. Raises FailedPreconditionError."""
    target = host.path(f"{VERSIONS}/{payload.name}")
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(payload, part, symlinks=True)
            os.sync()
            part.rename(target)
        _point_to(host, f"{VERSIONS}/{payload.name}/bin/{SHIM}")
    except OSError as error:
        raise FailedPreconditionError(f"{target} cannot be written: {error}") from error


def current(host: NodeHost) -> str | None:
    """The version that new pods get."""
    try:
        target = host.path(LINK).readlink()
    except OSError:
        return None
    found = _NAMED.match(str(target).encode())
    return found[1].decode() if found else None


def in_use(host: NodeHost) -> frozenset[str]:
    """The versions that running pods were started with."""
    return frozenset(
        name.decode()
        for command in host.commands()
        for name in _NAMED.findall(command)
        if _is_pod(command)
    )


def _is_pod(command: bytes) -> bool:
    return SHIM.encode() in command or b"qemu-system" in command


def collect(host: NodeHost) -> tuple[str, ...]:
    """Removes the versions that are neither current nor in use; their names."""
    kept = in_use(host) | {current(host)}
    removed = []
    folder = host.path(VERSIONS)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name not in kept and _NAME.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path.name)
    return tuple(removed)


def take_away(host: NodeHost) -> frozenset[str]:
    """Removes everything but what running pods need; the versions that stay for them."""
    kept = in_use(host)
    if not kept:
        host.path(LINK).unlink(missing_ok=True)
        for name in STATE:
            shutil.rmtree(host.path(name), ignore_errors=True)
        shutil.rmtree(host.path(VERSIONS), ignore_errors=True)
        _remove_if_empty(host.path(VERSIONS).parent)
    else:
        # The link stays: containerd runs the shim once more to clean up after each of these pods.
        collect(host)
    return kept


def _point_to(host: NodeHost, target: str) -> None:
    link = host.path(LINK)
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # not there, or somebody's
