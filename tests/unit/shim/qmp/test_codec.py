"""Commands as QEMU's schema has them, and answers that are not taken on trust."""

from __future__ import annotations

import pytest

from parma_shim.qmp import codec
from parma_shim.qmp.errors import QmpProtocolError


def test_commands() -> None:
    assert codec.add_fd(7) == codec.Command("add-fd", {"fdset-id": 7})
    assert codec.device_add_disk("d", "scsi0.0", 9, "n").arguments == {
        "driver": "scsi-hd",
        "id": "d",
        "bus": "scsi0.0",
        "channel": 0,
        "scsi-id": 0,
        "lun": 9,
        "drive": "n",
        "serial": "d",
    }
    layer = codec.blockdev_add("n", 7, read_only=True).arguments
    assert (layer["filename"], layer["read-only"], "cache" in layer) == (
        "/dev/fdset/7",
        True,
        False,
    )
    assert codec.blockdev_add("n", 7, read_only=False).arguments["read-only"] is False


@pytest.mark.parametrize(
    "reply", [None, [], {}, {"status": 3}, {"status": "x" * 999}, {"status": "a\nb"}]
)
def test_strange_states(reply: object) -> None:
    with pytest.raises(QmpProtocolError):
        codec.parse_status(reply)


@pytest.mark.parametrize("reply", [None, {}, {"fdset-id": 8}])
def test_another_set_than_asked(reply: object) -> None:
    with pytest.raises(QmpProtocolError):
        codec.parse_fdset(reply, 7)


def test_events() -> None:
    assert (
        codec.deleted_device({"event": "DEVICE_DELETED", "data": {"device": "lun3", "path": "/x"}})
        == "lun3"
    )
    assert codec.deleted_device({"event": "DEVICE_DELETED", "data": {"path": "/x"}}) is None
    assert codec.deleted_device({"event": "DEVICE_DELETED"}) is None
    assert codec.shutdown_reason({"data": {"reason": "guest-reset"}}) == "guest-reset"
    assert codec.shutdown_reason({"data": {"reason": "a\n"}}) == "unknown"
    assert codec.shutdown_reason({}) == "unknown"
