"""Where the agent keeps things. Paths of the protocol and of policies are fixed; a test puts a prefix before them."""

from __future__ import annotations

from dataclasses import dataclass

from parma_api.ids import ContainerId, SandboxId
from parma_api.volumes import root_path


@dataclass(frozen=True, slots=True)
class Layout:
    """The directories of one agent."""

    prefix: str = ""
    """Empty in the guest."""
    run: str = "/run/parma"

    def real(self, path: str) -> str:
        """A path of the protocol, where it really is."""
        return self.prefix + path

    def root(self, container: ContainerId) -> str:
        """A container's root, where it really is."""
        return self.real(root_path(container))

    def pins(self, container: ContainerId) -> str:
        """Where a container's bind mounts are held while it is created."""
        return f"{self.run}/pins/{container}"

    def shm(self, sandbox: SandboxId) -> str:
        """The pod's /dev/shm."""
        return f"{self.run}/shm/{sandbox}"
