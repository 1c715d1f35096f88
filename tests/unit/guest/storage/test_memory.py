"""emptyDir in memory: a real tmpfs of its size, made once, gone with the scratch."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from parma_api.ids import SandboxId
from parma_api.status import FailedPreconditionError, InvalidArgumentError
from parma_guest.storage import memory
from parma_guest.storage.files import Entry, Kind, PodFiles
from tests.fixtures.crun import require_root

NAME = "sandboxMounts/volumes/empty-dir/m"
PAGE = os.sysconf("SC_PAGE_SIZE")


def wanted(**more: int) -> Entry:
    return Entry(NAME, Kind.MEMORY, **{"mode": 0o2777, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "bounded"), [(0, 1 << 20), (1, PAGE), (8192, 8192), (1 << 40, 1 << 20)]
)
def test_the_size_is_bounded_by_the_vms_memory(size: int, bounded: int) -> None:
    options = memory.options(wanted(size=size, uid=1, gid=2), 1 << 20)
    assert options == f"size={bounded},mode=2777,uid=1,gid=2"


@pytest.mark.parametrize("more", [{"size": -1}, {"content": b"x"}, {"append": True}])
def test_entries_outside_the_rules(more: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        Entry(NAME, Kind.MEMORY, **more)  # type: ignore[arg-type]


def test_a_directory_on_disk_has_no_size() -> None:
    with pytest.raises(InvalidArgumentError, match="in memory"):
        Entry(NAME, Kind.DIRECTORY, size=1)


@pytest.mark.root
def test_a_tmpfs_that_holds_what_it_may(tmp_path: Path) -> None:
    require_root()
    pod = PodFiles(SandboxId("a" * 64), str(tmp_path))
    folder = tmp_path / NAME
    try:
        for _ in range(2):  # the second container that mounts it
            pod.put([wanted(size=16 * PAGE, uid=5, gid=6)])
        assert folder.is_mount()
        about = folder.stat()
        assert (about.st_mode & 0o7777, about.st_uid, about.st_gid) == (0o2777, 5, 6)
        (folder / "fits").write_bytes(bytes(8 * PAGE))
        assert (folder / "fits").stat().st_gid == 6
        with pytest.raises(OSError, match="No space left") as caught:
            (folder / "more").write_bytes(bytes(16 * PAGE))
        assert caught.value.errno == errno.ENOSPC
    finally:
        pod.release()
    assert not folder.is_mount()
    assert list(folder.iterdir()) == []


@pytest.mark.root
def test_it_hides_nothing(tmp_path: Path) -> None:
    require_root()
    (tmp_path / NAME).mkdir(parents=True)
    (tmp_path / NAME / "file").touch()
    with pytest.raises(FailedPreconditionError, match="made empty"):
        PodFiles(SandboxId("a" * 64), str(tmp_path)).put([wanted()])
