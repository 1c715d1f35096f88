"""Identifiers and digests, each a type of its own so that they cannot be swapped.

The guest knows pods and containers by 64 hexadecimal digits only (`guest_id`); what the host calls them
is longer, shorter or stranger, and never becomes part of a path.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from parma_api.status import InvalidArgumentError

SandboxId = NewType("SandboxId", str)
ContainerId = NewType("ContainerId", str)
ExecId = NewType("ExecId", str)
RootHash = NewType("RootHash", str)
"""A dm-verity root: 64 lower-case hexadecimal digits."""
DiffId = NewType("DiffId", str)
"""`sha256:` and 64 hexadecimal digits: the digest of an uncompressed layer (OCI image-spec, config)."""

_HEX64 = re.compile(r"[0-9a-f]{64}")


def guest_id(namespace: str, host_id: str) -> str:
    """The guest's name of the host's `host_id`: itself if 64 hexadecimal digits, else SHA-256 of `namespace/id`."""
    if _HEX64.fullmatch(host_id):
        return host_id
    return hashlib.sha256(f"{namespace}/{host_id}".encode()).hexdigest()


def is_guest_id(text: str) -> bool:
    """Whether `text` is an id in the guest's form."""
    return _HEX64.fullmatch(text) is not None


def parse_container_id(text: str) -> ContainerId:
    """`text` as a guest container id. Raises InvalidArgumentError."""
    if not is_guest_id(text):
        raise InvalidArgumentError("container id must be 64 lower-case hexadecimal digits")
    return ContainerId(text)


def parse_sandbox_id(text: str) -> SandboxId:
    """`text` as a guest pod id. Raises InvalidArgumentError."""
    if not is_guest_id(text):
        raise InvalidArgumentError("sandbox id must be 64 lower-case hexadecimal digits")
    return SandboxId(text)


def parse_root_hash(text: str) -> RootHash:
    """`text` as a dm-verity root. Raises InvalidArgumentError."""
    if not _HEX64.fullmatch(text):
        raise InvalidArgumentError("root hash must be 64 lower-case hexadecimal digits")
    return RootHash(text)


_EXEC_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def parse_exec_id(text: str) -> ExecId:
    """`text` as the name of a further process of a container. Raises InvalidArgumentError."""
    if not _EXEC_ID.fullmatch(text):
        raise InvalidArgumentError("exec id must be 1 to 128 characters out of A-Z a-z 0-9 _ . -")
    return ExecId(text)
