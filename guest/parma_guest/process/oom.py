"""Out of memory: `memory.events` of each container's control group, watched by inotify(7)."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from contextlib import suppress

from parma_guest.linux.cgroup import Cgroup
from parma_guest.linux.errno import KernelError
from parma_guest.linux.libc import encode, syscall

# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/linux/inotify.h
_SYS_ADD_WATCH, _SYS_RM_WATCH, _SYS_INIT1 = 254, 255, 294
_MODIFY, _IGNORED = 0x2, 0x8000
_EVENT = struct.Struct("iIII")


class MemoryWatch:
    """Tells of each container whose processes the kernel killed for want of memory."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """`tell` gets the container's id. Raises KernelError."""
        self._tell = tell
        self._fd = syscall("inotify_init1", _SYS_INIT1, os.O_NONBLOCK | os.O_CLOEXEC)
        self._watched: dict[int, tuple[str, Cgroup]] = {}
        self._kills: dict[str, int] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        """Watch no more."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def add(self, container: str, group: Cgroup) -> None:
        """Watch a container's group; one without a memory controller is not watched."""
        with suppress(KernelError):
            path = encode(f"{group.path}/memory.events")
            number = syscall("inotify_add_watch", _SYS_ADD_WATCH, self._fd, path, _MODIFY)
            self._watched[number] = (container, group)

    def remove(self, container: str) -> None:
        """The container is forgotten."""
        for number in [n for n, (name, _) in self._watched.items() if name == container]:
            del self._watched[number]
            with suppress(KernelError):  # the group, and with it the watch, is gone already
                syscall("inotify_rm_watch", _SYS_RM_WATCH, self._fd, number)
        self._kills.pop(container, None)

    def was_killed(self, container: str, group: Cgroup) -> bool:
        """Whether the kernel has killed any of its processes so far; also tells it, if nobody did yet."""
        self._look(container, group)
        return self._kills.get(container, 0) > 0

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            return
        offset = 0
        while offset + _EVENT.size <= len(data):
            number, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            if mask & _IGNORED:
                self._watched.pop(number, None)
            elif number in self._watched:
                self._look(*self._watched[number])

    def _look(self, container: str, group: Cgroup) -> None:
        try:
            kills = group.memory_events().get("oom_kill", 0)
        except KernelError:
            return
        if kills > self._kills.get(container, 0):
            self._kills[container] = kills
            self._tell(container)
