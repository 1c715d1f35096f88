"""Pins: real bind mounts of the pod's files, and trees that try to lead out of it."""

# ruff: noqa: ASYNC240 (a test may look at files while its loop waits)

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_api.ids import ContainerId, SandboxId
from parma_api.status import ApiError, InvalidArgumentError
from parma_api.volumes import pod_directory
from parma_guest.agent.layout import Layout
from parma_guest.agent.sources import Sources
from parma_guest.linux.mount import MNT_DETACH, mount, umount

POD, ONE = SandboxId("d" * 64), ContainerId("1" * 64)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "root"), str(tmp_path / "run"))
    Path(made.real(pod_directory(POD))).mkdir(parents=True)
    return made


@pytest.fixture
def home(layout: Layout) -> Path:
    return Path(layout.real(pod_directory(POD)))


@pytest.fixture
def sources(layout: Layout) -> Iterator[Sources]:
    made = Sources(layout)
    yield made
    made.unpin(ONE)
    assert not Path(layout.pins(ONE)).exists()


async def test_a_pin_shows_the_file_whatever_happens_to_its_name(
    sources: Sources, home: Path
) -> None:
    inner = home / "sandboxMounts/x"
    inner.mkdir(parents=True)
    (inner / "file").write_text("good")
    pins = await sources.pin(POD, ONE, {"/judged": "sandboxMounts/x"})
    inner.rename(home / "moved")
    inner.symlink_to("/etc")
    assert Path(pins["/judged"], "file").read_text() == "good"


async def test_what_is_missing_becomes_an_empty_directory(sources: Sources, home: Path) -> None:
    await sources.pin(POD, ONE, {"/a": "sandboxMounts/volumes/empty-dir/a"})
    made = home / "sandboxMounts/volumes/empty-dir/a"
    assert made.is_dir()
    assert made.stat().st_mode & 0o777 == 0o777
    assert made.parent.stat().st_mode & 0o777 == 0o755


async def test_a_missing_part_of_an_empty_dir_is_like_the_whole(
    sources: Sources, home: Path
) -> None:
    whole = home / "sandboxMounts/volumes/empty-dir/a"
    whole.mkdir(parents=True)
    whole.chmod(0o2770)
    await sources.pin(POD, ONE, {"/a": "sandboxMounts/volumes/empty-dir/a/b/c"})
    assert whole.stat().st_mode & 0o7777 == 0o2770
    assert (whole / "b").stat().st_mode & 0o7777 == 0o2777
    assert (whole / "b/c").stat().st_mode & 0o7777 == 0o2777


async def test_a_file_that_a_container_made_is_shown_as_it_is(sources: Sources, home: Path) -> None:
    file = home / "sandboxMounts/volumes/empty-dir/a/file"
    file.parent.mkdir(parents=True)
    file.write_text("made inside")
    pins = await sources.pin(POD, ONE, {"/a": "sandboxMounts/volumes/empty-dir/a/file"})
    assert Path(pins["/a"]).read_text() == "made inside"


def propagates(path: Path) -> bool:
    """Whether the mount at this very path is a shared one."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[4] == str(path):
            return any(word.startswith("shared:") for word in words[6 : words.index("-")])
    return False


async def test_what_is_mounted_beneath_a_shared_source_is_seen_by_others(
    sources: Sources, home: Path
) -> None:
    inner = "sandboxMounts/volumes/empty-dir/a"
    pins = await sources.pin(POD, ONE, {"/a": inner}, {"/a"})
    try:
        assert propagates(home / inner)
        (Path(pins["/a"]) / "volume").mkdir()
        mount("none", str(Path(pins["/a"]) / "volume"), "tmpfs")
        (Path(pins["/a"]) / "volume/file").write_text("mounted by one container")
        sources.unpin(ONE)
        assert (home / inner / "volume/file").read_text() == "mounted by one container"
        later = await sources.pin(POD, ONE, {"/a": inner}, {"/a"})
        assert (Path(later["/a"]) / "volume/file").exists()
    finally:
        sources.unshare(POD)
    assert not propagates(home / inner)
    assert list((home / inner / "volume").iterdir()) == []
    sources.unshare(POD)


async def test_a_shared_file_is_a_file(sources: Sources, home: Path) -> None:
    pins = await sources.pin(POD, ONE, {"/h": "hosts"}, {"/h"})
    assert "localhost" in Path(pins["/h"]).read_text()
    assert not propagates(home / "hosts")
    sources.unshare(POD)


async def test_a_source_that_is_not_shared_has_no_mount_of_its_own(
    sources: Sources, home: Path
) -> None:
    await sources.pin(POD, ONE, {"/a": "sandboxMounts/volumes/empty-dir/a"})
    assert not propagates(home / "sandboxMounts/volumes/empty-dir/a")


async def test_the_end_of_a_log(sources: Sources, home: Path) -> None:
    log = home / "sandboxMounts/logs/box/termination-log"
    log.parent.mkdir(parents=True)
    inner = str(log.relative_to(home))
    assert await sources.last_words(POD, inner) == b""
    log.write_bytes(b"x" * 5000 + b"end")
    assert await sources.last_words(POD, inner) == b"x" * 4093 + b"end"
    log.unlink()
    log.symlink_to("/etc/passwd")
    assert await sources.last_words(POD, inner) == b""
    log.unlink()
    os.mkfifo(log)
    assert await sources.last_words(POD, inner) == b""


async def test_missing_network_files_are_made(sources: Sources, home: Path) -> None:
    pins = await sources.pin(POD, ONE, {"/h": "hosts", "/r": "resolv.conf"})
    assert "localhost" in Path(pins["/h"]).read_text()
    assert Path(pins["/r"]).read_text() == ""
    with (home / "hosts").open("r+") as file:  # a refresh in place is seen
        file.write("changed")
    assert Path(pins["/h"]).read_text().startswith("changed")


@pytest.mark.parametrize("where", ["sandboxMounts/x", "sandboxMounts", "sandboxMounts/x/y"])
async def test_links_are_refused_wherever_they_stand(
    sources: Sources, home: Path, where: str
) -> None:
    link = home / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/etc")
    with pytest.raises(ApiError):
        await sources.pin(
            POD, ONE, {"/a": "sandboxMounts/x/y" if where != "sandboxMounts/x" else where}
        )


@pytest.mark.parametrize("make", ["fifo", "device"])
async def test_what_is_no_file_is_refused(sources: Sources, home: Path, make: str) -> None:
    (home / "sandboxMounts").mkdir()
    path = home / "sandboxMounts/x"
    if make == "fifo":
        os.mkfifo(path)
    else:
        os.mknod(path, 0o20600, os.makedev(1, 3))
    with pytest.raises(InvalidArgumentError, match="neither a directory nor a file"):
        await sources.pin(POD, ONE, {"/a": "sandboxMounts/x"})


@pytest.mark.parametrize("inner", ["../x", "/etc", "sandboxMounts/../../x", "", "a//b"])
async def test_paths_that_lead_out(sources: Sources, inner: str) -> None:
    with pytest.raises(ApiError):
        await sources.pin(POD, ONE, {"/a": inner})


async def test_a_failure_takes_back_what_was_pinned(
    sources: Sources, home: Path, layout: Layout
) -> None:
    (home / "sandboxMounts").mkdir()
    (home / "sandboxMounts/bad").symlink_to("/etc")
    with pytest.raises(ApiError):
        await sources.pin(POD, ONE, {"/a": "sandboxMounts/good", "/b": "sandboxMounts/bad"})
    assert not Path(layout.pins(ONE)).exists()
    assert str(layout.pins(ONE)) not in Path("/proc/self/mountinfo").read_text()


async def test_nothing_to_pin(sources: Sources, layout: Layout) -> None:
    assert await sources.pin(POD, ONE, {}) == {}


def test_shared_memory_is_one_for_the_pod(sources: Sources) -> None:
    path = sources.shared_memory(POD)
    try:
        assert sources.shared_memory(POD) == path
        line = next(n for n in Path("/proc/self/mountinfo").read_text().splitlines() if path in n)
        assert "nosuid,nodev,noexec" in line
        assert "size=65536k" in line
    finally:
        umount(path, MNT_DETACH)
