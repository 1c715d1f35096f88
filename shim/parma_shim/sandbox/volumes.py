"""What the pod gets by content: sent before the first container that sees it, sent again when the host's copy changes.

kubelet renews tokens within the hour and turns `..data` when a ConfigMap changes; a container must see both. The host's
copies are looked at every few seconds (inotify would watch a folder of each volume for a renewal an hour).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from parma_api.gen.parma.agent.v1 import FileEntry
from parma_api.status import ApiError
from parma_api.volumes import VolumeKind, empty_dir_root
from parma_shim.agent.client import AgentClient
from parma_shim.sandbox.content import (
    DIRECTORY,
    FILE,
    MOUNTS,
    Version,
    empty_directory,
    messages,
    read_file,
    read_tree,
    version_of,
)
from parma_shim.sandbox.mounts import HostVolume
from parma_shim.sandbox.subpaths import host_mounts

log = logging.getLogger(__name__)

REFRESH_INTERVAL = 3.0
LOCALHOST = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@dataclass(slots=True)
class _Sent:
    source: str
    version: Version
    network: bool


class PodVolumes:
    """The files of one pod in its guest, by their path beneath the pod's directory."""

    def __init__(self, agent: AgentClient) -> None:
        self._agent = agent
        self._sent: dict[str, _Sent] = {}
        self._made: set[str] = set()

    async def send_defaults(self, hostname: str) -> None:
        """The three network files as a container without any of its own gets them."""
        name = hostname.encode()
        hosts = LOCALHOST + (b"127.0.1.1\t" + name + b"\n" if name else b"")
        contents = {"hosts": hosts, "hostname": name + b"\n", "resolv.conf": b""}
        await self._agent.put_files([_plain(path, content) for path, content in contents.items()])

    async def send_network_files(self, files: Sequence[tuple[str, str]]) -> None:
        """Those that CRI binds, by name. Raises RefusedError, and what the agent raises."""
        for name, source in files:
            version = await asyncio.to_thread(version_of, source)
            known = self._sent.get(name)
            if known is not None and known.source == source and known.version == version:
                continue
            entry = await asyncio.to_thread(read_file, source, name)
            await self._put([entry])
            self._sent[name] = _Sent(source, version, network=True)

    async def send(self, volumes: Sequence[HostVolume]) -> None:
        """A container's volumes; those that are there already are left alone. Raises as `send_network_files`."""
        for volume in volumes:
            name = volume.volume.name
            path = f"{MOUNTS}{name}"
            if volume.volume.kind is VolumeKind.CONTENT:
                if path not in self._sent:
                    await self._send_content(path, volume.source)
            elif volume.volume.kind is VolumeKind.COPY:
                await self._send_copy(path, volume.source)
            elif volume.volume.kind is VolumeKind.LOG:
                await self._put([_plain(path, b"", 0o666)])  # each life of a container has its own
            else:
                await self._make_empty(
                    empty_dir_root(name), volume.source.removesuffix(_part(name))
                )

    async def _send_copy(self, path: str, source: str) -> None:
        """Once for the pod, and not refreshed: what containers have written there stays."""
        if path not in self._made:
            await self._put(await asyncio.to_thread(read_tree, source, path))
            self._made.add(path)

    async def _make_empty(self, name: str, source: str) -> None:
        """An emptyDir as a whole; what is used of it by subPath the guest makes."""
        if name in self._made:
            return
        entry = await asyncio.to_thread(_empty, source, f"{MOUNTS}{name}")
        await self._put([entry])
        self._made.add(name)

    async def refresh(self) -> None:
        """Sends what has changed since. Never raises ApiError: the next round tries again."""
        for path, sent in list(self._sent.items()):
            version = await asyncio.to_thread(version_of, sent.source)
            if version == sent.version or not version.marks:
                continue
            try:
                if sent.network:
                    await self._put([await asyncio.to_thread(read_file, sent.source, path)])
                    self._sent[path] = _Sent(sent.source, version, network=True)
                else:
                    await self._send_content(path, sent.source)
            except ApiError as error:
                log.warning("%s is not renewed in the guest: %s", path, error.message)

    async def keep_fresh(self, interval: float = REFRESH_INTERVAL) -> None:
        """`refresh` until cancelled."""
        while True:
            await asyncio.sleep(interval)
            await self.refresh()

    async def _send_content(self, path: str, source: str) -> None:
        version = await asyncio.to_thread(version_of, source)
        entries = await asyncio.to_thread(read_tree, source, path)
        await self._put(entries)
        self._sent[path] = _Sent(source, version, network=False)

    async def _put(self, entries: Sequence[FileEntry]) -> None:
        """A folder that fits into one message replaces what was there; a larger one only adds."""
        batches = list(messages(entries))
        whole = len(batches) == 1 and entries[0].kind is DIRECTORY
        replace = entries[0].path if whole and len(entries) > 1 else ""
        for batch in batches:
            await self._agent.put_files(_beneath(batch, replace), replace)


def _beneath(batch: list[FileEntry], replace: str) -> list[FileEntry]:
    """The replaced folder itself is not an entry of its own."""
    return [entry for entry in batch if entry.path != replace]


def write_last_words(volumes: Sequence[HostVolume], words: bytes) -> None:
    """The end of a container's termination log into kubelet's file of it, before its end is told. Blocking."""
    for volume in volumes:
        if volume.volume.kind is not VolumeKind.LOG:
            continue
        try:
            flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(volume.source, flags)
            with open(fd, "wb") as file:  # noqa: PTH123
                file.write(words)
        except OSError as error:
            log.warning("%s: the termination log is lost: %s", volume.source, error.strerror)


def _part(name: str) -> str:
    """What a volume's name has beyond its emptyDir."""
    return name.removeprefix(empty_dir_root(name))


def _empty(source: str, path: str) -> FileEntry:
    row = next((row for row in reversed(host_mounts()) if row.point == source), None)
    in_memory = row is not None and row.filesystem == "tmpfs"
    return empty_directory(source, path, in_memory=in_memory)


def _plain(path: str, content: bytes, mode: int = 0o644) -> FileEntry:
    return FileEntry(path=path, kind=FILE, mode=mode, content=content)
