"""Which groups QEMU gets, from the modes of real files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parma_shim.vmm.config import Accelerator
from parma_shim.vmm.errors import VmmSetupError
from parma_shim.vmm.privileges import device_groups, vmm_privileges

pytestmark = pytest.mark.root


def device(path: Path, mode: int, group: int) -> Path:
    path.touch()
    path.chmod(mode)
    os.chown(path, 0, group)
    return path


def test_groups(tmp_path: Path) -> None:
    kvm = device(tmp_path / "kvm", 0o660, 108)
    assert device_groups([kvm]) == (108,)
    assert device_groups([device(tmp_path / "open", 0o666, 0), kvm]) == (108,)
    assert device_groups([]) == ()


@pytest.mark.parametrize(("mode", "group"), [(0o600, 108), (0o660, 0), (0o640, 108)])
def test_root_only(tmp_path: Path, mode: int, group: int) -> None:
    with pytest.raises(VmmSetupError, match="chgrp kvm"):
        device_groups([device(tmp_path / "kvm", mode, group)])


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(VmmSetupError, match="No such file"):
        device_groups([tmp_path / "kvm"])


def test_every_shim_has_a_user_of_its_own() -> None:
    first, second = (vmm_privileges(Accelerator.TCG, 0x70000000, pid) for pid in (77, 78))
    assert first is not None
    assert second is not None
    assert (first.uid, first.gid, first.groups) == (0x7000004D, 0x7000004D, ())
    assert second.uid != first.uid
