"""The security context directory: policy, certificates and reference information, where ACI's workloads look for them.

Each container gets a directory `security-context-*` in its root and one variable that names it, after the policy has
decided; neither is judged. A file without content is not written, and without files there is no directory.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from errno import EROFS
from typing import Final

from parma_guest.linux.beneath import Beneath
from parma_guest.linux.errno import KernelError

POLICY: Final = "security-policy-base64"
CERTIFICATES: Final = "host-amd-cert-base64"
REFERENCE: Final = "reference-info-base64"
_SIGNED: Final = {
    "application/vnd.tcb-reference-info.v1+cose": "tcb-reference-info-base64",
    "application/vnd.platform-reference-info.v1+cose": "platform-reference-info-base64",
}
_DIRECTORY_MODE, _FILE_MODE = 0o755, 0o755


@dataclass(frozen=True, slots=True)
class SecurityContext:
    """What arrived with the policy. Certificates and reference information are the host's word: users verify them."""

    policy: bytes = b""
    certificates: bytes = b""
    reference_info: bytes = b""

    def files(self, signed: Mapping[str, bytes]) -> dict[str, bytes]:
        """Names and contents. `signed`: reference information that came as fragments do, by media type."""
        found = {
            POLICY: self.policy,
            CERTIFICATES: self.certificates,
            REFERENCE: self.reference_info,
            **{_SIGNED[kind]: content for kind, content in signed.items() if kind in _SIGNED},
        }
        return {name: base64.b64encode(data) for name, data in found.items() if data}


def write(root: str, files: Mapping[str, bytes]) -> str | None:
    """Make the directory in a container's root; its name, or None where there is nothing to write or no way to.

    Raises KernelError.
    """
    if not files:
        return None
    name = f"security-context-{os.urandom(5).hex()}"
    with Beneath(root) as tree:
        try:
            tree.mkdir_new(name, _DIRECTORY_MODE)
        except KernelError as error:
            if error.number == EROFS:  # assembled without scratch: nothing can be put into it
                return None
            raise
        for file, content in files.items():
            tree.write(f"{name}/{file}", content, _FILE_MODE)
    return name


def remove(root: str, name: str) -> None:
    """Take the directory of a container that did not come to be away again."""
    with suppress(KernelError, OSError), Beneath(root) as tree:
        tree.remove(name)
