"""The early mounts, as a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_api.status import NotFoundError
from parma_guest import ops
from parma_guest.boot import early


def test_plan() -> None:
    lines = ops.describe(early.plan_mounts())
    assert "mount devpts on /dev/pts" in lines
    assert "mkdir /run/gcs/c" in lines
    assert "mkdir /run/mounts/scsi" in lines


def test_what_is_mounted_is_left_alone() -> None:
    assert Path("/proc").is_mount()
    early.MountOnce("proc", "/proc", 0).apply()


def test_an_image_without_a_group_of_modules_says_so(tmp_path: Path) -> None:
    file = tmp_path / "modules.list"
    file.write_text("")
    with pytest.raises(NotFoundError, match="storage"):
        early.load_groups(early.GROUPS, str(file))
