"""vsock or virtio-serial."""

from __future__ import annotations

from parma_shim.config import ChannelSetting
from parma_shim.doctor.result import Check, Finding, Host, fail, ok
from parma_shim.vmm.vsock import vsock_available


def run(host: Host) -> Finding:
    """Which of the two carries the agent's channel."""
    there = vsock_available(host.path("/dev/vhost-vsock"))
    if host.config.channel is ChannelSetting.VIRTIO_SERIAL:
        return ok("virtio-serial, as configured")
    if there:
        return ok("vsock")
    if host.config.channel is ChannelSetting.VSOCK:
        return fail(
            "channel = vsock, and /dev/vhost-vsock is not there",
            'modprobe vhost_vsock, or channel = "auto"',
        )
    return ok("virtio-serial (no /dev/vhost-vsock)")


CHECK = Check("channel", run)
