"""Where a group's things are on the host, and to which group a container belongs.

    <run>/<group key>/s           the socket that containerd speaks to
    <run>/<group key>/lock        flock: one `start` or `delete` at a time
    <run>/<group key>/state.json  what `delete` needs when the shim is dead
    <run>/<group key>/shim.err    what Python says when it dies
    <bundle>/address              the socket's address, by which containerd and `delete` find the group

<run> is $PARMA_RUN, else /run/parma. On the path of `start` and `delete`: imports next to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from parma_shim.errors import UsageError

RUN_DIRECTORY = "/run/parma"
MAX_SOCKET_PATH = 106
MAX_CONFIG = 16 << 20
GROUP = "io.containerd.runc.v2.group"
SANDBOX_ID = "io.kubernetes.cri.sandbox-id"
CONTAINER_TYPE = "io.kubernetes.cri.container-type"


class Membership(NamedTuple):
    """The group of a container, out of its annotations. All of it is the host's word, and used for routing only."""

    group: str
    joins: bool
    """A further container of a pod: without the pod's shim it cannot be."""


class Group(NamedTuple):
    """One group's places."""

    directory: str

    @property
    def socket(self) -> str:
        return f"{self.directory}/s"

    @property
    def address(self) -> str:
        return f"unix://{self.directory}/s"

    @property
    def state(self) -> str:
        return f"{self.directory}/state.json"

    @property
    def lock(self) -> str:
        return f"{self.directory}/lock"

    @property
    def errors(self) -> str:
        return f"{self.directory}/shim.err"


def run_directory(environment: Mapping[str, str]) -> str:
    """The folder of all groups."""
    return os.path.abspath(environment.get("PARMA_RUN") or RUN_DIRECTORY)  # noqa: PTH100 (pathlib costs an import)


def group_places(run: str, containerd: str, namespace: str, group: str) -> Group:
    """Raises UsageError when the socket's path would be too long."""
    import hashlib

    name = hashlib.sha256(f"{containerd}\0{namespace}\0{group}".encode()).hexdigest()[:32]
    places = Group(f"{run}/{name}")
    if len(places.socket) > MAX_SOCKET_PATH:
        raise UsageError(f"{places.socket} is too long for a socket: choose a shorter PARMA_RUN")
    return places


def membership(annotations: Mapping[str, str], container_id: str) -> Membership:
    """The annotation for groups, else the pod's id, else the container is alone."""
    group = annotations.get(GROUP) or annotations.get(SANDBOX_ID) or container_id
    return Membership(group, joins=annotations.get(CONTAINER_TYPE) == "container")


def read_annotations(bundle: str) -> dict[str, str]:
    """The annotations of a bundle's config.json. Raises UsageError, one line, for one that cannot be read."""
    import json

    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            text = file.read(MAX_CONFIG + 1)
        document = json.loads(text) if len(text) <= MAX_CONFIG else None
    except OSError as error:
        raise UsageError(f"config.json cannot be read in {bundle}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} is not an OCI document")
    annotations = document.get("annotations")
    if annotations is None:
        return {}
    if not isinstance(annotations, dict):
        raise UsageError(f"{path}: annotations is not an object")
    return {str(name): str(value) for name, value in annotations.items()}


def group_of_bundle(bundle: str, run: str) -> Group | None:
    """The group that `start` wrote into the bundle; None when there is none, or it is not one of ours."""
    try:
        with open(f"{bundle}/address", encoding="utf-8") as file:  # noqa: PTH123
            address = file.read(4096).strip()
    except (OSError, UnicodeDecodeError):
        return None
    directory = address.removeprefix("unix://").removesuffix("/s")
    parent, _, name = directory.rpartition("/")
    ours = parent == run and len(name) == 32 and all(c in "0123456789abcdef" for c in name)
    return Group(directory) if ours and address == f"unix://{directory}/s" else None
