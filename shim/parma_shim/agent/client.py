"""The agent's calls, each with a deadline, answers of bounded size, texts cleaned, and values within their range.

The guest is hostile to the shim as the host is to the guest: what it answers is a claim. Calls raise RemoteError (the
agent refused), DeadlineExceededError, UnavailableError (connection lost), HostileGuestError.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from parma_api.channel.stream import ByteStream
from parma_api.gen.parma.agent import v1
from parma_api.status import ApiError
from parma_api.ttrpc.client import TtrpcClient
from parma_api.wire.strict import Limits
from parma_shim.agent.text import clean, translated
from parma_shim.errors import HostileGuestError

T = TypeVar("T")

MAX_ANSWER = 256 << 10
MAX_LAST_WORDS = 4096
MAX_REPORT = 4096
"""Bytes; a report of today has 1184."""
LIMITS = Limits(size=MAX_ANSWER, items=4096, elements=16384, depth=4)
SHORT, MEDIUM, LONG = 20.0, 60.0, 120.0
"""Seconds. Under TCG on a busy machine a call takes ten times as long as under KVM."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_STATUS = 255


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process in the guest ended."""

    status: int
    oom_killed: bool = False
    last_words: bytes = b""
    """The end of its termination log, at most `MAX_LAST_WORDS` bytes of anything."""


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """What Health told; for logs."""

    version: str
    variant: str
    kernel: str
    report_provider: str


@dataclass(frozen=True, slots=True)
class Streams:
    """Ids of the channel's streams; 0: none."""

    stdin: int = 0
    stdout: int = 0
    stderr: int = 0

    def message(self) -> v1.Stdio:
        """For a request."""
        return v1.Stdio(stdin=self.stdin, stdout=self.stdout, stderr=self.stderr)


class AgentClient:
    """One agent. Made in a running loop; `close` ends it."""

    def __init__(self, stream: ByteStream) -> None:
        self._client = TtrpcClient(stream, limits=LIMITS, max_response=MAX_ANSWER)
        self._stub = v1.AgentStub(self._client)

    async def wait_lost(self) -> None:
        """Returns when the connection is over."""
        await self._client.wait_lost()

    async def close(self) -> None:
        """Drops the connection; pending calls fail."""
        await self._client.close()

    async def health(self) -> GuestFacts:
        """The agent's first answer; no deadline of its own."""
        answer = await _call("Health", self._stub.health(v1.HealthRequest()))
        return GuestFacts(
            version=clean(answer.version, 64),
            variant=clean(answer.variant, 64),
            kernel=clean(answer.kernel, 64),
            report_provider=clean(answer.report_provider, 64),
        )

    async def set_policy(
        self, policy: bytes, certificates: bytes, reference_info: bytes, digest: str
    ) -> bytes:
        """The report that the guest compared, unjudged, at most `MAX_REPORT` bytes.

        Raises HostileGuestError when the guest says it took another text than that with SHA-256 `digest`.
        """
        request = v1.SetPolicyRequest(
            policy=policy, certificates=certificates, reference_info=reference_info
        )
        answer = await _call("SetPolicy", self._stub.set_policy(request, timeout=LONG))
        if answer.policy_sha256 != digest:
            raise HostileGuestError("the guest took another policy than the one it was given")
        if len(answer.report) > MAX_REPORT:
            raise HostileGuestError(f"the guest's report has {len(answer.report)} bytes")
        return answer.report

    async def load_fragment(self, envelope: bytes) -> None:
        """A signed fragment, or a list of trusted receipts."""
        request = v1.LoadFragmentRequest(envelope=envelope)
        await _call("LoadFragment", self._stub.load_fragment(request, timeout=LONG))

    async def setup_sandbox(self, request: v1.SetupSandboxRequest) -> None:
        """Network and settings of the pod."""
        await _call("SetupSandbox", self._stub.setup_sandbox(request, timeout=MEDIUM))

    async def put_files(self, entries: Sequence[v1.FileEntry], replace: str = "") -> None:
        """Files by content."""
        request = v1.PutFilesRequest(entries=list(entries), replace=replace)
        await _call("PutFiles", self._stub.put_files(request, timeout=MEDIUM))

    async def mount_scratch(self, device: v1.ScsiAddress, target: str) -> None:
        """The pod's scratch, encrypted."""
        request = v1.MountScratchRequest(
            device=device, target=target, encrypted=True, filesystem="ext4"
        )
        await _call("MountScratch", self._stub.mount_scratch(request, timeout=LONG))

    async def mount_layer(self, device: v1.ScsiAddress, target: str) -> str:
        """The root hash that the guest found on the device, and the policy allowed."""
        request = v1.MountLayerRequest(device=device, target=target)
        answer = await _call("MountLayer", self._stub.mount_layer(request, timeout=MEDIUM))
        if not _SHA256.fullmatch(answer.root_hash):
            raise HostileGuestError("the guest's answer to MountLayer has no root hash")
        return answer.root_hash

    async def unmount_layer(self, target: str) -> None:
        """A layer that nobody uses any more."""
        request = v1.UnmountLayerRequest(target=target)
        await _call("UnmountLayer", self._stub.unmount_layer(request, timeout=SHORT))

    async def mount_overlay(self, request: v1.MountOverlayRequest) -> None:
        """A container's root."""
        await _call("MountOverlay", self._stub.mount_overlay(request, timeout=MEDIUM))

    async def unmount_overlay(self, container_id: str, target: str) -> None:
        """A removed container's root."""
        request = v1.UnmountOverlayRequest(container_id=container_id, target=target)
        await _call("UnmountOverlay", self._stub.unmount_overlay(request, timeout=SHORT))

    async def create_container(self, request: v1.CreateContainerRequest) -> None:
        """Makes a container; its process waits for `start_container`."""
        await _call("CreateContainer", self._stub.create_container(request, timeout=LONG))

    async def start_container(self, container_id: str) -> None:
        """Runs it."""
        request = v1.StartContainerRequest(container_id=container_id)
        await _call("StartContainer", self._stub.start_container(request, timeout=MEDIUM))

    async def exec_process(self, request: v1.ExecProcessRequest) -> None:
        """A further process."""
        await _call("ExecProcess", self._stub.exec_process(request, timeout=MEDIUM))

    async def signal(self, container_id: str, exec_id: str, number: int, *, every: bool) -> None:
        """A signal to one process, or all of the container's."""
        request = v1.SignalProcessRequest(
            container_id=container_id, exec_id=exec_id, signal=number, all=every
        )
        await _call("SignalProcess", self._stub.signal_process(request, timeout=SHORT))

    async def shutdown_container(self, container_id: str) -> None:
        """Ends what is left of a container; the guest forgets it."""
        request = v1.ShutdownContainerRequest(container_id=container_id)
        await _call("ShutdownContainer", self._stub.shutdown_container(request, timeout=SHORT))

    async def wait(self, container_id: str, exec_id: str) -> Exit:
        """The end of a process, however long it takes."""
        request = v1.WaitProcessRequest(container_id=container_id, exec_id=exec_id)
        answer = await _call("WaitProcess", self._stub.wait_process(request))
        if answer.exit_status > _MAX_STATUS:
            raise HostileGuestError(f"the guest tells an exit status of {answer.exit_status}")
        if len(answer.termination_log) > MAX_LAST_WORDS:
            raise HostileGuestError("the guest tells a termination log of more than 4096 bytes")
        return Exit(answer.exit_status, answer.oom_killed, answer.termination_log)

    async def next_event(self, after: int) -> tuple[int, str]:
        """Number and container of the next out-of-memory event; the id is a claim, and "" for other events."""
        answer = await _call("NextEvent", self._stub.next_event(v1.NextEventRequest(after=after)))
        if answer.sequence <= after:
            raise HostileGuestError("the guest's events do not count upwards")
        return answer.sequence, answer.oom.container_id

    async def resize(self, container_id: str, exec_id: str, width: int, height: int) -> None:
        """A terminal's size."""
        request = v1.ResizeTerminalRequest(
            container_id=container_id, exec_id=exec_id, width=width, height=height
        )
        await _call("ResizeTerminal", self._stub.resize_terminal(request, timeout=SHORT))

    async def update(self, container_id: str, resources: v1.Resources) -> None:
        """Bounded resources."""
        request = v1.UpdateResourcesRequest(container_id=container_id, resources=resources)
        await _call("UpdateResources", self._stub.update_resources(request, timeout=SHORT))

    async def pause(self) -> None:
        """Freezes the whole group."""
        await _call("PauseGroup", self._stub.pause_group(v1.PauseGroupRequest(), timeout=SHORT))

    async def resume(self) -> None:
        """Thaws it."""
        await _call("ResumeGroup", self._stub.resume_group(v1.ResumeGroupRequest(), timeout=SHORT))

    async def stats(self, container_id: str) -> v1.StatsResponse:
        """The container's numbers, unchecked: `parma_shim.task.metrics` does that."""
        request = v1.StatsRequest(container_id=container_id)
        return await _call("Stats", self._stub.stats(request, timeout=SHORT))

    async def forward_port(self, port: int, stream: int) -> None:
        """Joins a stream to a port of the guest's loopback."""
        request = v1.ForwardPortRequest(port=port, stream=stream)
        await _call("ForwardPort", self._stub.forward_port(request, timeout=SHORT))


async def _call(method: str, answer: Awaitable[T]) -> T:
    try:
        return await answer
    except ApiError as error:
        raise translated(error, method) from error
