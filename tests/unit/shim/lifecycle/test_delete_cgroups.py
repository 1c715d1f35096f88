"""`delete` and the cgroups of a VM whose shim was killed: one that is busy for a moment is not left over."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from parma_shim.lifecycle import delete


def test_one_that_is_busy_for_a_moment_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer, inner = tmp_path / "pod", tmp_path / "pod" / "vm"
    inner.mkdir(parents=True)
    busy, real = [3], os.rmdir

    def rmdir(path: str) -> None:
        if path == str(inner) and busy[0]:
            busy[0] -= 1
            raise OSError(errno.EBUSY, "busy")
        real(path)

    monkeypatch.setattr(os, "rmdir", rmdir)
    delete.remove_cgroups([str(outer), str(inner)])
    monkeypatch.undo()
    assert not outer.exists()


def test_one_that_is_in_use_or_gone_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = tmp_path / "used"
    used.mkdir()

    def rmdir(path: str) -> None:
        raise OSError(errno.EBUSY if path == str(used) else errno.ENOENT, "no")

    monkeypatch.setattr(delete, "CGROUP_TIMEOUT", 0.02)
    monkeypatch.setattr(os, "rmdir", rmdir)
    delete.remove_cgroups([str(tmp_path / "gone"), str(used)])
    monkeypatch.undo()
    assert used.is_dir()
