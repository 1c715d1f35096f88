"""A disk is found only once it opens: the kernel shows it in sysfs a moment earlier."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from parma_api.status import DeadlineExceededError
from parma_guest.linux import blockdev
from parma_guest.linux.blockdev import ScsiAddress, find_disk
from parma_guest.linux.errno import KernelError


class _NoSuchDeviceError(Exception):
    """pyudev.DeviceNotFoundError's part."""


class _Monitor:
    """Each poll is the kernel's next event: what `becomes` says happens to the node."""

    def __init__(self, becomes: list[Any]) -> None:
        self._becomes = becomes
        self.polls = 0

    def filter_by(self, subsystem: str) -> None:
        assert subsystem == "block"

    def start(self) -> None:
        pass

    def poll(self, timeout: float) -> None:
        self.polls += 1
        if self._becomes:
            self._becomes.pop(0)()
        else:
            time.sleep(min(timeout, 0.01))


def _sysfs(monkeypatch: pytest.MonkeyPatch, node: Path, becomes: list[Any]) -> _Monitor:
    """A kernel whose sysfs shows one disk from the start, at `node`."""
    monitor = _Monitor(becomes)
    disk = SimpleNamespace(device_node=str(node), device_number=os.makedev(8, 48))
    host = SimpleNamespace(sys_name="host0")

    def listed(subsystem: str, **rest: Any) -> list[Any]:
        return [host] if subsystem == "scsi_host" else [disk]

    context = SimpleNamespace(list_devices=listed)
    pyudev = SimpleNamespace(
        Devices=SimpleNamespace(from_name=lambda context, kind, name: name),
        DeviceNotFoundError=_NoSuchDeviceError,
        Monitor=SimpleNamespace(from_netlink=lambda context, source: monitor),
    )
    monkeypatch.setattr(blockdev, "_pyudev", lambda: (pyudev, context))
    return monitor


def _not_live(node: Path) -> None:
    """open(2) of a socket's file answers ENXIO, as it does of a disk before bdev_add."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(node))
    with pytest.raises(OSError, match="No such device or address"):
        os.open(node, os.O_RDONLY)


def test_a_disk_that_does_not_open_yet_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = tmp_path / "sdd"
    _not_live(node)

    def live() -> None:
        node.unlink()
        node.write_bytes(b"")

    monitor = _sysfs(monkeypatch, node, [lambda: None, live])
    disk = find_disk(ScsiAddress(0, 3), time.monotonic() + 10)
    assert (disk.node, disk.number) == (str(node), "8:48")
    assert monitor.polls == 2


def test_a_node_that_devtmpfs_has_not_made_yet_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = tmp_path / "sdd"
    monitor = _sysfs(monkeypatch, node, [node.touch])
    assert find_disk(ScsiAddress(0, 3), time.monotonic() + 10).node == str(node)
    assert monitor.polls == 1


def test_a_disk_that_never_opens_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = tmp_path / "sdd"
    _not_live(node)
    _sysfs(monkeypatch, node, [])
    with pytest.raises(DeadlineExceededError, match="no disk at SCSI address 0:0:0:3"):
        find_disk(ScsiAddress(0, 3), time.monotonic() + 0.05)


def test_another_error_is_not_waited_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = tmp_path / "sdd"
    node.symlink_to(tmp_path / "elsewhere")
    monitor = _sysfs(monkeypatch, node, [])
    with pytest.raises(KernelError, match="Too many levels of symbolic links"):
        find_disk(ScsiAddress(0, 3), time.monotonic() + 10)
    assert monitor.polls == 0
