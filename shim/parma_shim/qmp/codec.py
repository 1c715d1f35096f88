"""QMP commands that we use, as data: name and arguments out, replies checked in. Pure.

QEMU faces a hostile guest, so its answers are not trusted: shape and size are checked here, and nothing that it says
chooses a file, a descriptor or a command. Names: qapi/block-core.json, qapi/qdev.json, qapi/misc.json of QEMU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from parma_shim.qmp.errors import QmpProtocolError

MAX_MESSAGE = 1 << 20
"""Bytes of one message from QEMU; the longest that we cause is a greeting or an error of some hundred bytes."""
MAX_TEXT = 256


@dataclass(frozen=True, slots=True)
class Command:
    """`{"execute": name, "arguments": arguments}`."""

    name: str
    arguments: Mapping[str, object]


def add_fd(fdset: int) -> Command:
    """The descriptor sent just before becomes `/dev/fdset/<fdset>`."""
    return Command("add-fd", {"fdset-id": fdset})


def remove_fd(fdset: int) -> Command:
    """Closes the set's descriptors; those that QEMU opened through it live on until it closes them."""
    return Command("remove-fd", {"fdset-id": fdset})


def blockdev_add(node: str, fdset: int, *, read_only: bool) -> Command:
    """A block node on a passed descriptor. A writable one is scratch, gone with the pod: it is never flushed."""
    arguments: dict[str, object] = {
        "driver": "file",
        "node-name": node,
        "filename": f"/dev/fdset/{fdset}",
        "read-only": read_only,
        "auto-read-only": False,
    }
    if not read_only:
        arguments["discard"] = "unmap"
        arguments["cache"] = {"direct": False, "no-flush": True}
    return Command("blockdev-add", arguments)


def blockdev_del(node: str) -> Command:
    """Forgets a block node that no device uses."""
    return Command("blockdev-del", {"node-name": node})


def device_add_disk(device: str, bus: str, lun: int, node: str) -> Command:
    """A SCSI disk at channel 0, target 0."""
    return Command(
        "device_add",
        {
            "driver": "scsi-hd",
            "id": device,
            "bus": bus,
            "channel": 0,
            "scsi-id": 0,
            "lun": lun,
            "drive": node,
            "serial": device,
        },
    )


def device_del(device: str) -> Command:
    """Asks for the removal; DEVICE_DELETED says that it is done."""
    return Command("device_del", {"id": device})


def query_status() -> Command:
    """See `parse_status`."""
    return Command("query-status", {})


def quit_() -> Command:
    """Ends QEMU at once."""
    return Command("quit", {})


def parse_status(reply: object) -> str:
    """`running`, `paused`, `guest-panicked`, ... (qapi/run-state.json). Raises QmpProtocolError."""
    return _text(_mapping(reply), "status")


def parse_fdset(reply: object, expected: int) -> None:
    """The answer of add-fd names the set that we chose. Raises QmpProtocolError."""
    if _mapping(reply).get("fdset-id") != expected:
        raise QmpProtocolError("QEMU put a descriptor into another set than asked")


def deleted_device(event: Mapping[str, object]) -> str | None:
    """The device of a DEVICE_DELETED event; None for one without an id of ours."""
    data = event.get("data")
    device = data.get("device") if isinstance(data, dict) else None
    return device if isinstance(device, str) else None


def shutdown_reason(event: Mapping[str, object]) -> str:
    """`guest-shutdown`, `guest-reset`, `guest-panic`, `host-signal`, ... of a SHUTDOWN event."""
    data = event.get("data")
    reason = data.get("reason") if isinstance(data, dict) else None
    return reason[:MAX_TEXT] if isinstance(reason, str) and reason.isprintable() else "unknown"


def _mapping(reply: object) -> Mapping[str, object]:
    if not isinstance(reply, dict):
        raise QmpProtocolError("QEMU answered something that is no object")
    return reply


def _text(reply: Mapping[str, object], name: str) -> str:
    value = reply.get(name)
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise QmpProtocolError(f"QEMU's answer has no usable `{name}`")
    return value
