"""The stub's faces where there is something of that name already, and where there is no module (K19)."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_api.status import FailedPreconditionError
from parma_guest.agent.facilities import report_device
from parma_guest.linux.errno import KernelError
from parma_guest.stub import device, faces
from parma_guest.stub.fuse_wire import FuseError
from parma_guest.stub.provider import StubProvider


async def test_a_device_that_is_there_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sev-guest"
    path.touch()
    monkeypatch.setattr(faces, "DEVICE", str(path))
    with pytest.raises(FailedPreconditionError, match="is not the stub's"):
        await faces.open_faces(StubProvider())


def test_without_the_module_there_is_no_device(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="module cuse"):
        device.open_cuse(str(tmp_path / "cuse"))


def test_what_answers_no_init_is_no_cuse(tmp_path: Path) -> None:
    (tmp_path / "cuse").write_bytes(bytes(100))
    with pytest.raises(FuseError):
        device.open_cuse(str(tmp_path / "cuse"))


def test_only_a_character_device_is_given(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert report_device(str(tmp_path / "file")) == ()
    assert report_device(str(tmp_path / "none")) == ()
    (found,) = report_device("/dev/null")
    assert (found.path, found.major, found.minor) == ("/dev/null", 1, 3)
