"""What configfs-tsm does (drivers/virt/coco/tsm.c; Documentation/ABI/testing/configfs-tsm-report), over the stub.

Pure, but for the processor that it is given. A directory under tsm/report is a request: `inblob` (64 bytes) and
`privlevel` are written, `outblob` (the report) and `auxblob` (the certificate table) are read, `generation` counts the
writes.
"""

from __future__ import annotations

import enum
import errno
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from parma_api.snp import psp_wire
from parma_guest.stub.fuse_wire import RefusedError

MAX_INBLOB: Final = 64
MAX_ENTRIES: Final = 1024
PRIVLEVEL_FLOOR: Final = 0
_PRIVLEVEL_MAX: Final = 3
_NUMBER: Final = re.compile(rb"\+?(?:0[xX]([0-9a-fA-F]{1,8})|(0[0-7]{0,10})|([1-9][0-9]{0,9}))\n?")
_MAX_GENERATION: Final = 2**64 - 1

Ask = Callable[[psp_wire.Request], Awaitable[psp_wire.Answer]]


class Attribute(enum.StrEnum):
    """The files of an entry."""

    INBLOB = "inblob"
    OUTBLOB = "outblob"
    AUXBLOB = "auxblob"
    PROVIDER = "provider"
    GENERATION = "generation"
    PRIVLEVEL = "privlevel"
    PRIVLEVEL_FLOOR = "privlevel_floor"

    @property
    def mode(self) -> int:
        """Permissions."""
        return 0o200 if self in (Attribute.INBLOB, Attribute.PRIVLEVEL) else 0o444


@dataclass(slots=True)
class Entry:
    """One request."""

    number: int
    inblob: bytes = b""
    privlevel: int = 0
    generation: int = 0
    made: int = -1
    """Generation of the blobs."""
    outblob: bytes = b""
    auxblob: bytes = b""

    def write(self, attribute: Attribute, data: bytes) -> None:
        """Take a whole value. Raises RefusedError."""
        match attribute:
            case Attribute.INBLOB:
                self._advance()
                self.inblob = data
            case Attribute.PRIVLEVEL:
                level = _number(data)
                if not PRIVLEVEL_FLOOR <= level <= _PRIVLEVEL_MAX:
                    raise RefusedError(errno.EINVAL)
                self._advance()
                self.privlevel = level
            case _:
                raise RefusedError(errno.EACCES)

    async def read(self, attribute: Attribute, ask: Ask) -> bytes:
        """A whole value. Raises RefusedError."""
        match attribute:
            case Attribute.PROVIDER:
                return b"sev_guest\n"
            case Attribute.GENERATION:
                return b"%d\n" % self.generation
            case Attribute.PRIVLEVEL_FLOOR:
                return b"%d\n" % PRIVLEVEL_FLOOR
            case Attribute.OUTBLOB | Attribute.AUXBLOB:
                await self._make(ask)
                return self.outblob if attribute is Attribute.OUTBLOB else self.auxblob
            case _:
                raise RefusedError(errno.EACCES)

    def _advance(self) -> None:
        if self.generation == _MAX_GENERATION:
            raise RefusedError(errno.EBUSY)
        self.generation += 1

    async def _make(self, ask: Ask) -> None:
        """The blobs of this generation; those that were made stay."""
        if len(self.inblob) != MAX_INBLOB:
            raise RefusedError(errno.EINVAL)
        if self.made == self.generation:
            return
        generation = self.generation
        table = await _body(ask, psp_wire.CertificatesRequest())
        report = await _body(ask, psp_wire.ReportRequest(self.inblob, self.privlevel))
        self.outblob, self.auxblob, self.made = report, table, generation


async def _body(ask: Ask, request: psp_wire.Request) -> bytes:
    answer = await ask(request)
    if answer.status or answer.exitinfo2:
        raise RefusedError(errno.EIO)
    return answer.body


def _number(data: bytes) -> int:
    """As kstrtouint with base 0 reads it. Raises RefusedError."""
    found = _NUMBER.fullmatch(data)
    if found is None:
        raise RefusedError(errno.EINVAL)
    for digits, base in zip(found.groups(), (16, 8, 10), strict=True):
        if digits is not None:
            return int(digits, base)
    raise RefusedError(errno.EINVAL)


@dataclass(slots=True)
class Tree:
    """The entries by name."""

    entries: dict[str, Entry] = field(default_factory=dict)
    _next: int = 1

    def make(self, name: str) -> Entry:
        """mkdir. Raises RefusedError."""
        if name in self.entries:
            raise RefusedError(errno.EEXIST)
        if len(self.entries) >= MAX_ENTRIES:
            raise RefusedError(errno.ENOSPC)
        entry = self.entries[name] = Entry(self._next)
        self._next += 1
        return entry

    def remove(self, name: str) -> None:
        """rmdir; its files go with it. Raises RefusedError."""
        if self.entries.pop(name, None) is None:
            raise RefusedError(errno.ENOENT)
