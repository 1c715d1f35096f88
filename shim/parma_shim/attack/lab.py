"""Where attacks are played: one VM for most of them, booted when it is first needed, others for those that break it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Self

from parma_api.gen.parma.agent import v1
from parma_shim.attack.layers import LayerFile, make_layer
from parma_shim.attack.policy import IDLE, policy_text
from parma_shim.attack.program import CANARY, CANARY_TEXT, TOOL, program
from parma_shim.attack.rig import BOOT_ATTEMPTS, POD, Rig, boot
from parma_shim.attack.scratch_file import make_scratch_file
from parma_shim.config import Config
from parma_shim.vmm.disks import DiskAccess, ScsiAddress

_FOLDERS = ("dev", "etc", "proc", "sys", "data")


class Group:
    """The running group in the shared VM, as far as it was made lawfully."""

    def __init__(self, lab: Lab, rig: Rig) -> None:
        self.lab = lab
        self.rig = rig
        self.targets: dict[str, str] = {}
        """Where base, top and extra are mounted."""
        self.app = ""
        """The long-lived container, running."""
        self.probe = ""
        """A root that is assembled for a container which is never created: attacks on creation ask for it."""

        self.victim: tuple[str, dict[int, bytes]] | None = None
        """A container that has written to the scratch, and the disk's blocks that changed with it."""

    @property
    def app_layers(self) -> list[str]:
        """Of `app` and `reader`, top first."""
        return [self.targets["top"], self.targets["base"]]

    async def set_up(self, scratch: ScsiAddress) -> None:
        """The lawful beginning of the group's life, its policy being in force."""
        rig = self.rig
        request = v1.SetupSandboxRequest(sandbox_id=POD, hostname="attacked")
        await rig.agent.setup_sandbox(request)
        await rig.mount_scratch(scratch)
        for name, layer in self.lab.layers().items():
            self.targets[name] = rig.new_target()
            await rig.mount_layer(layer, self.targets[name])
        self.app = await self.assemble()
        await rig.create(self.app, IDLE)
        await rig.start(self.app)
        self.probe = await self.assemble()

    async def assemble(self) -> str:
        """A root of the two layers, for a new container id."""
        container = self.rig.new_id()
        await self.rig.mount_overlay(container, self.app_layers)
        return container

    async def require_untouched(self) -> None:
        """What every refusal must leave behind: the policy decides, and the probe was not created."""
        await self.rig.require_stance(v1.Stance(v1.Stance.POLICY))
        await self.rig.require_no_process(self.probe)


class Lab:
    """Use as an async context manager; everything that was started ends with it."""

    def __init__(
        self, config: Config, environment: Mapping[str, str], policy: bytes | None = None
    ) -> None:
        """`policy`: another text than the attacker's own, for attacks that need no group."""
        self.config = config
        self.environment = environment
        self.folder = Path()
        self.last_console = ""
        self._policy = policy
        self._undo = contextlib.AsyncExitStack()
        self._layers: dict[str, LayerFile] = {}
        self._rig: Rig | None = None
        self._scratch: ScsiAddress | None = None
        self._group: Group | None = None

    async def __aenter__(self) -> Self:
        import tempfile

        folder = self._undo.enter_context(tempfile.TemporaryDirectory(prefix="parma-attack-"))
        self.folder = Path(folder)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._undo.aclose()

    @property
    def policy(self) -> bytes:
        """What the tenant wants in force."""
        if self._policy is None:
            layers = self.layers()
            self._policy = policy_text(
                *(layers[name].root_hash for name in ("base", "top", "extra"))
            )
        return self._policy

    def layers(self) -> dict[str, LayerFile]:
        """base, top, extra: those of the policy."""
        if not self._layers:
            tool, canary = TOOL.strip("/"), CANARY.strip("/")
            self._layers = {
                "base": self.layer("base", {tool: program()}),
                "top": self.layer("top", {canary: CANARY_TEXT}),
                "extra": self.layer("extra", {tool: program(), canary: CANARY_TEXT}),
            }
        return self._layers

    def layer(self, name: str, files: Mapping[str, bytes]) -> LayerFile:
        """A new layer of these files."""
        return make_layer(self.folder / f"{name}.img", files, _FOLDERS)

    def boot(
        self, policy: bytes, *, image: Path | None = None, attempts: int = BOOT_ATTEMPTS
    ) -> AbstractAsyncContextManager[Rig]:
        """A VM of its own, from the image in a folder, else from this host's; `last_console` if it does not come up."""
        environment = dict(self.environment)
        if image is not None:
            environment["PARMA_UVM"] = str(image)
        return boot(self.config, environment, policy, attempts=attempts, ended=self._ended)

    def _ended(self, console: str) -> None:
        self.last_console = console

    async def fresh(self) -> Rig:
        """The shared VM before its policy."""
        if self._rig is None:
            self._rig = await self._undo.enter_async_context(self.boot(self.policy))
        return self._rig

    async def bare(self) -> tuple[Rig, ScsiAddress]:
        """The shared VM with its policy in force, and the disk for its scratch."""
        rig = await self.fresh()
        if self._scratch is None:
            await rig.set_policy(rig.policy)
            rig.scratch = self.folder / "scratch.img"
            make_scratch_file(rig.scratch)
            self._scratch = await rig.attach(rig.scratch, DiskAccess.READ_WRITE)
        return rig, self._scratch

    async def group(self) -> Group:
        """The shared VM with its group running. From here on nothing is fresh or bare."""
        if self._group is None:
            rig, scratch = await self.bare()
            group = Group(self, rig)
            await group.set_up(scratch)
            self._group = group
        return self._group

    @staticmethod
    def is_root() -> bool:
        """Whether machines are given a user of their own."""
        return os.geteuid() == 0
