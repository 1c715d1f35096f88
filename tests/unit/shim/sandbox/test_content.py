"""Files of the host as messages, and their renewal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parma_api.gen.parma.agent.v1 import FileEntryKind
from parma_api.status import ResourceExhaustedError
from parma_api.volumes import host_copy, volume_of
from parma_shim.agent.client import AgentClient
from parma_shim.errors import RefusedError
from parma_shim.sandbox import content
from parma_shim.sandbox.mounts import HostVolume
from parma_shim.sandbox.volumes import PodVolumes, write_last_words


def kubelet_volume(folder: Path, generation: str, text: str) -> None:
    """As kubelet writes one: `..data` is turned at once."""
    (folder / generation).mkdir(parents=True)
    (folder / generation / "key").write_text(text)
    (folder / "..tmp").symlink_to(generation)
    (folder / "..tmp").rename(folder / "..data")
    if not (folder / "key").is_symlink():
        (folder / "key").symlink_to("..data/key")


def test_a_volume_as_it_is_on_disk(tmp_path: Path) -> None:
    kubelet_volume(tmp_path / "v", "..1", "one")
    found = {x.path: (x.kind, x.content) for x in content.read_tree(str(tmp_path / "v"), "m/v")}
    assert found == {
        "m/v": (FileEntryKind.KIND_DIRECTORY, b""),
        "m/v/..1": (FileEntryKind.KIND_DIRECTORY, b""),
        "m/v/..1/key": (FileEntryKind.KIND_FILE, b"one"),
        "m/v/..data": (FileEntryKind.KIND_SYMLINK, b"..1"),
        "m/v/key": (FileEntryKind.KIND_SYMLINK, b"..data/key"),
    }


def test_special_files_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert [x.path for x in content.read_tree(str(tmp_path), "v")] == ["v"]


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError):
        content.read_tree(str(tmp_path / "missing"), "v")
    monkeypatch.setattr(content, "MAX_ENTRIES", 3)
    for number in range(3):
        (tmp_path / str(number)).touch()
    with pytest.raises(ResourceExhaustedError, match="more than 3 files"):
        content.read_tree(str(tmp_path), "v")
    with (tmp_path / "big").open("wb") as file:
        file.truncate(content.MAX_FILE + 1)
    with pytest.raises(ResourceExhaustedError, match="4 MiB"):
        content.read_file(str(tmp_path / "big"), "big")


def test_long_files_go_in_parts(tmp_path: Path) -> None:
    data = os.urandom(content.MESSAGE + 5)
    (tmp_path / "f").write_bytes(data)
    batches = list(content.messages([content.read_file(str(tmp_path / "f"), "f")]))
    parts = [entry for batch in batches for entry in batch]
    assert [part.append for part in parts] == [False, True]
    assert b"".join(part.content for part in parts) == data
    assert all(sum(len(x.content) for x in batch) <= content.MESSAGE for batch in batches)


class Recorder(AgentClient):
    """Keeps what is put."""

    def __init__(self) -> None:
        self.puts: list[tuple[dict[str, bytes], str]] = []

    async def put_files(self, entries, replace: str = "") -> None:  # type: ignore[no-untyped-def]
        self.puts.append(({x.path: x.content for x in entries}, replace))


async def test_renewed_when_the_host_changes(tmp_path: Path) -> None:
    folder = tmp_path / "pods/u/volumes/kubernetes.io~secret/s"
    kubelet_volume(folder, "..1", "one")
    hosts = tmp_path / "hosts"
    hosts.write_text("a")
    agent = Recorder()
    volumes = PodVolumes(agent)
    await volumes.send([HostVolume(volume_of(str(folder)), str(folder), "/s")])
    await volumes.send_network_files([("hosts", str(hosts))])
    await volumes.send([HostVolume(volume_of(str(folder)), str(folder), "/other")])
    assert len(agent.puts) == 2
    await volumes.refresh()
    assert len(agent.puts) == 2
    kubelet_volume(folder, "..2", "two")
    hosts.write_text("longer")
    await volumes.refresh()
    (entries, replace), (network, _) = agent.puts[2:]
    base = "sandboxMounts/volumes/secret/s"
    assert replace == base
    assert entries[f"{base}/..data"] == b"..2"
    assert entries[f"{base}/..2/key"] == b"two"
    assert network == {"hosts": b"longer"}
    await volumes.refresh()
    assert len(agent.puts) == 4


async def test_a_copy_is_made_once_and_not_renewed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    agent = Recorder()
    volumes = PodVolumes(agent)
    copy = HostVolume(host_copy(str(tmp_path)), str(tmp_path), "/d")
    await volumes.send([copy])
    (tmp_path / "file").write_text("longer")
    await volumes.refresh()
    await volumes.send([copy])
    ((entries, replace),) = agent.puts
    base = f"sandboxMounts/host{tmp_path}"
    assert (entries[f"{base}/file"], replace) == (b"one", base)


async def test_a_log_is_empty_for_each_life_and_its_end_comes_back(tmp_path: Path) -> None:
    agent = Recorder()
    volumes = PodVolumes(agent)
    files = [tmp_path / f"pods/u/containers/box/{number}" for number in ("01", "02")]
    files[0].parent.mkdir(parents=True)
    for file in files:
        file.write_text("older")
        log = HostVolume(volume_of(str(file)), str(file), "/dev/termination-log")
        await volumes.send([log])
        write_last_words([log], b"goodbye")
        assert file.read_bytes() == b"goodbye"
    assert agent.puts == [({"sandboxMounts/logs/box/termination-log": b""}, "")] * 2


def test_no_log_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("kept")
    link = tmp_path / "pods/u/containers/box/01"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "target")
    write_last_words([HostVolume(volume_of(str(link)), str(link), "/dev/termination-log")], b"x")
    assert (tmp_path / "target").read_text() == "kept"


async def test_a_sub_path_makes_the_whole_empty_dir(tmp_path: Path) -> None:
    folder = tmp_path / "pods/u/volumes/kubernetes.io~empty-dir/e"
    folder.mkdir(parents=True)
    folder.chmod(0o2777)
    agent = Recorder()
    volumes = PodVolumes(agent)
    for part in ("/a/b", "", "/c"):
        source = f"{folder}{part}"
        await volumes.send([HostVolume(volume_of(source), source, "/e")])
    assert agent.puts == [({"sandboxMounts/volumes/empty-dir/e": b""}, "")]
    entry = content.empty_directory(str(folder), "e", in_memory=False)
    assert (entry.kind, entry.mode, entry.size) == (content.DIRECTORY, 0o2777, 0)


def test_an_empty_dir_in_memory_has_the_hosts_size() -> None:
    entry = content.empty_directory("/dev/shm", "e", in_memory=True)
    space = os.statvfs("/dev/shm")
    assert entry.kind is content.MEMORY
    assert entry.size == space.f_blocks * space.f_frsize > 0


async def test_scratch_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "pods/u/volumes/kubernetes.io~empty-dir/e"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    (folder / "hosts-own").touch()
    agent = Recorder()
    volumes = PodVolumes(agent)
    for _ in range(2):
        await volumes.send([HostVolume(volume_of(str(folder)), str(folder), "/e")])
    assert agent.puts == [({"sandboxMounts/volumes/empty-dir/e": b""}, "")]
