"""The stub's configfs-tsm as a file system: the shape of /sys/kernel/config with tsm/report in it, served over FUSE."""

from __future__ import annotations

import errno
import os
import stat
import struct
from dataclasses import dataclass, field
from typing import Final

from parma_guest.linux import mount
from parma_guest.linux.errno import kernel_call
from parma_guest.stub import fuse_wire
from parma_guest.stub.fuse_wire import Op, RefusedError, Request
from parma_guest.stub.session import Session
from parma_guest.stub.tsm_tree import MAX_INBLOB, Ask, Attribute, Entry, Tree

FUSE: Final = "/dev/fuse"
ROOT, TSM, REPORT = 1, 2, 3
_FIXED: Final = {ROOT: {"tsm": TSM}, TSM: {"report": REPORT}}
_PER_ENTRY: Final = 16
"""Node numbers of an entry: the directory, then its attributes in their order."""
_ATTRIBUTES: Final = tuple(Attribute)
_DIRECTORY, _FILE = stat.S_IFDIR | 0o755, stat.S_IFREG
_NEVER: Final = frozenset((6, 8, 10, 12, 13, 35, 45))
"""SYMLINK, MKNOD, UNLINK, RENAME, LINK, CREATE, RENAME2."""
_MODE_BITS: Final = 1 | 2 | 4
"""Of FUSE_SETATTR: mode, uid, gid."""

_INIT_IN: Final = struct.Struct("<IIII")
_INIT_OUT: Final = struct.Struct("<IIIIHHIIHHI28x")
_ATTR: Final = struct.Struct("<QQQQQQIIIIIIIIII")
_ATTR_OUT: Final = struct.Struct("<QI4x")
_ENTRY_OUT: Final = struct.Struct("<QQQQII")
_SETATTR_IN: Final = struct.Struct("<I")
_HANDLE: Final = struct.Struct("<Q")
_READ_IN: Final = struct.Struct("<QQI")
_WRITE_IN: Final = struct.Struct("<QQIIQII")
_WRITE_OUT: Final = struct.Struct("<II")
_DIRENT: Final = struct.Struct("<QQII")
_MKDIR_NAME: Final = 8
_STATFS: Final = struct.Struct("<QQQQQIIII24x")


@dataclass(slots=True)
class _Open:
    """An open file: what was read of it at first, and what is being written."""

    entry: Entry
    attribute: Attribute
    content: bytes | None = None
    written: bytearray = field(default_factory=bytearray)


class TsmFileSystem:
    """Answers the kernel's requests from a tree."""

    def __init__(self, ask: Ask) -> None:
        self._ask, self.tree = ask, Tree()
        self._open: dict[int, _Open] = {}
        self._next = 1

    async def handle(self, request: Request) -> bytes | None:
        """See `session.Handler`."""
        match request.opcode:
            case Op.INIT:
                return _init(request)
            case Op.LOOKUP:
                return self._entry(self._child(request.node, request.name()))
            case Op.GETATTR:
                return self._attr(request.node)
            case Op.SETATTR:
                if request.unpack(_SETATTR_IN)[0] & _MODE_BITS:
                    raise RefusedError(errno.EPERM)
                return self._attr(request.node)  # a truncation before a write
            case Op.MKDIR | Op.RMDIR:
                return self._directory(request)
            case Op.OPENDIR:
                self._names(request.node)
                return fuse_wire.opened(0)
            case Op.READDIR:
                return self._readdir(request)
            case Op.STATFS:
                return _STATFS.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0)
            case Op.RELEASEDIR:
                return b""
            case Op.OPEN | Op.READ | Op.WRITE | Op.FLUSH | Op.RELEASE:
                return await self._file(request)
            case Op.FORGET | Op.BATCH_FORGET | Op.DESTROY:
                return None
            case _:
                raise RefusedError(errno.EPERM if request.opcode in _NEVER else errno.ENOSYS)

    # Names and nodes

    def _names(self, node: int) -> dict[str, int]:
        """What a directory holds. Raises RefusedError."""
        if node in _FIXED:
            return _FIXED[node]
        if node == REPORT:
            return {name: e.number * _PER_ENTRY for name, e in self.tree.entries.items()}
        self._find(node)
        if node % _PER_ENTRY:
            raise RefusedError(errno.ENOTDIR)
        return {str(name): node + n for n, name in enumerate(_ATTRIBUTES, 1)}

    def _child(self, node: int, name: str) -> int:
        try:
            return self._names(node)[name]
        except KeyError:
            raise RefusedError(errno.ENOENT) from None

    def _find(self, node: int) -> Entry:
        """The entry that a node belongs to. Raises RefusedError."""
        for entry in self.tree.entries.values():
            if entry.number == node // _PER_ENTRY and node % _PER_ENTRY <= len(_ATTRIBUTES):
                return entry
        raise RefusedError(errno.ENOENT)

    def _mode(self, node: int) -> int:
        if node <= REPORT:
            return _DIRECTORY
        self._find(node)
        place = node % _PER_ENTRY
        return _FILE | _ATTRIBUTES[place - 1].mode if place else _DIRECTORY

    def _stat(self, node: int) -> bytes:
        mode = self._mode(node)
        links = 2 if stat.S_ISDIR(mode) else 1
        size = 0 if stat.S_ISDIR(mode) else 4096
        return _ATTR.pack(node, size, 0, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)

    def _attr(self, node: int) -> bytes:
        return _ATTR_OUT.pack(0, 0) + self._stat(node)

    def _entry(self, node: int) -> bytes:
        return _ENTRY_OUT.pack(node, 0, 0, 0, 0, 0) + self._stat(node)

    def _directory(self, request: Request) -> bytes:
        """mkdir and rmdir: entries of tsm/report, and nothing else."""
        if request.node != REPORT:
            raise RefusedError(errno.EPERM)
        if request.opcode == Op.MKDIR:
            entry = self.tree.make(request.name(_MKDIR_NAME))
            return self._entry(entry.number * _PER_ENTRY)
        self.tree.remove(request.name())
        return b""

    def _readdir(self, request: Request) -> bytes:
        _, offset, size = request.unpack(_READ_IN)
        names = [(".", request.node), ("..", ROOT), *self._names(request.node).items()]
        found = b""
        for place, (name, node) in list(enumerate(names, 1))[offset:]:
            raw = name.encode()
            kind = stat.S_IFMT(self._mode(node)) >> 12
            one = _DIRENT.pack(node, place, len(raw), kind) + raw
            one += bytes(-len(one) % 8)
            if len(found) + len(one) > size:
                break
            found += one
        return found

    # Files

    async def _file(self, request: Request) -> bytes:
        if request.opcode == Op.OPEN:
            return self._opened(request.node)
        (handle,) = request.unpack(_HANDLE)
        file = self._open.get(handle)
        if file is None:
            raise RefusedError(errno.EBADF)
        match request.opcode:
            case Op.READ:
                return await self._read(file, request)
            case Op.WRITE:
                return _write(file, request)
            case Op.RELEASE:
                del self._open[handle]
            case _:
                pass
        _commit(file)
        return b""

    def _opened(self, node: int) -> bytes:
        entry = self._find(node)
        if not node % _PER_ENTRY:
            raise RefusedError(errno.EISDIR)
        handle, self._next = self._next, self._next + 1
        self._open[handle] = _Open(entry, _ATTRIBUTES[node % _PER_ENTRY - 1])
        return fuse_wire.opened(handle, fuse_wire.DIRECT_IO)

    async def _read(self, file: _Open, request: Request) -> bytes:
        """From what the first read of this open file found, as configfs does."""
        _, offset, size = request.unpack(_READ_IN)
        if file.content is None:
            file.content = await file.entry.read(file.attribute, self._ask)
        return file.content[offset : offset + size]


def _write(file: _Open, request: Request) -> bytes:
    """A blob is taken when the file is closed, another attribute at once."""
    _, offset, size, *_ = request.unpack(_WRITE_IN)
    data = request.body[_WRITE_IN.size :][:size]
    if file.attribute is not Attribute.INBLOB:
        file.entry.write(file.attribute, data)
    elif offset + len(data) > MAX_INBLOB:
        raise RefusedError(errno.EFBIG)
    else:
        file.written[offset:] = bytes(offset - len(file.written[:offset])) + data
    return _WRITE_OUT.pack(len(data), 0)


def _commit(file: _Open) -> None:
    """At each close of a descriptor; what was written is taken once."""
    if file.written:
        data, file.written = bytes(file.written), bytearray()
        file.entry.write(file.attribute, data)


def _init(request: Request) -> bytes:
    major, minor, *_ = request.unpack(_INIT_IN)
    if major != fuse_wire.MAJOR:
        raise RefusedError(errno.EPROTO)
    return _INIT_OUT.pack(
        *(fuse_wire.MAJOR, min(minor, 31), 0, 0, 8, 6),
        *(fuse_wire.MAX_WRITE, 1, 0, 0, 0),
    )


def open_mount(target: str, device: str = FUSE) -> int:
    """A descriptor behind a mount at `target`, which waits for `serve`. Raises KernelError.

    Whoever looks at the mount waits for the server: the agent's own loop must not.
    """
    with kernel_call("open", device):
        fd = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
        options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
        mount.mount("parma-stub", target, "fuse.parma-stub", flags, options)
    except BaseException:
        os.close(fd)
        raise
    return fd


def serve(fd: int, ask: Ask) -> Session:
    """In a running loop, until the session is closed."""
    return Session(fd, TsmFileSystem(ask).handle)
