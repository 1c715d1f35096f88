"""Who a process runs as, looked up inside the container's root without leaving it (policy.md 8.5)."""

from __future__ import annotations

import os
import re
import stat
import struct
from dataclasses import dataclass
from errno import EACCES, ELOOP, ENOENT, ENOTDIR, ENXIO, EXDEV
from typing import Final

from parma_api.status import InvalidArgumentError, ResourceExhaustedError
from parma_guest.linux.errno import KernelError, kernel_call
from parma_guest.linux.libc import SYS_OPENAT2, encode, syscall
from parma_guest.oci.parse import MAX_ID, User

MAX_FILE: Final = 4 << 20
# include/uapi/linux/openat2.h: links are resolved as in a chroot, magic links not at all.
_RESOLVE_IN_ROOT = 0x10
_RESOLVE_NO_MAGICLINKS = 2
_ABSENT = frozenset({ENOENT, ENOTDIR, ELOOP, EXDEV, ENXIO, EACCES})
_NUMBER = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Identity:
    """A user or group: the number, and the name that the image gives it, or ""."""

    number: int
    name: str

    def judged(self) -> dict[str, str]:
        """As the policy sees it."""
        return {"id": str(self.number), "name": self.name}


@dataclass(frozen=True, slots=True)
class Identities:
    """User, groups (the primary one first), umask."""

    user: Identity
    groups: tuple[Identity, ...]
    umask: int

    @property
    def umask_text(self) -> str:
        """Four octal digits."""
        return f"{self.umask:04o}"


@dataclass(frozen=True, slots=True)
class Account:
    """A line of passwd (`group`: its fourth field) or of group (0)."""

    name: str
    number: int
    group: int = 0


def resolve(root: str, user: User) -> Identities:
    """Look the process's user up in `root`. Blocks on the root's disk.

    Raises InvalidArgumentError (a name that the image does not list), ResourceExhaustedError, KernelError.
    """
    passwd = accounts(read_in_root(root, "etc/passwd"), group_field=True)
    groups = accounts(read_in_root(root, "etc/group"), group_field=False)
    return identify(user, passwd, groups)


def identify(user: User, passwd: tuple[Account, ...], groups: tuple[Account, ...]) -> Identities:
    """The same from the files' lines. Pure."""
    uid, gid = _by_name(user.username, passwd, groups) if user.username else (user.uid, user.gid)
    return Identities(
        Identity(uid, _name(passwd, uid)),
        tuple(Identity(number, _name(groups, number)) for number in (gid, *user.additional)),
        0o022 if user.umask is None else user.umask,
    )


def _by_name(
    text: str, passwd: tuple[Account, ...], groups: tuple[Account, ...]
) -> tuple[int, int]:
    name, colon, group = text.partition(":")
    account = _find(passwd, name)
    if account is None and not _NUMBER.fullmatch(name):
        raise InvalidArgumentError(f"user {name[:64]!r} is not in the image's /etc/passwd")
    uid = account.number if account is not None else _bounded(name)
    if not colon:
        return uid, account.group if account is not None else 0
    entry = _find(groups, group)
    if entry is None and not _NUMBER.fullmatch(group):
        raise InvalidArgumentError(f"group {group[:64]!r} is not in the image's /etc/group")
    return uid, entry.number if entry is not None else _bounded(group)


def _find(rows: tuple[Account, ...], text: str) -> Account | None:
    """By name, then by number; of several entries the first counts."""
    for row in rows:
        if row.name == text:
            return row
    if _NUMBER.fullmatch(text):
        return next((row for row in rows if row.number == int(text)), None)
    return None


def _name(rows: tuple[Account, ...], number: int) -> str:
    return next((row.name for row in rows if row.number == number), "")


def _bounded(text: str) -> int:
    if int(text) > MAX_ID:
        raise InvalidArgumentError(f"{text} is not a user or group number")
    return int(text)


def accounts(content: bytes, *, group_field: bool) -> tuple[Account, ...]:
    """Lines `name:password:number[:group]...`; lines of another form are not there, as for the C library."""
    rows: list[Account] = []
    for line in content.decode(errors="replace").splitlines():
        fields = line.strip().split(":")
        wanted = fields[2:4] if group_field else fields[2:3]
        enough = len(wanted) == (2 if group_field else 1) and bool(fields[0])
        if enough and all(_NUMBER.fullmatch(text) and int(text) <= MAX_ID for text in wanted):
            numbers = [int(text) for text in wanted]
            rows.append(Account(fields[0], numbers[0], numbers[1] if group_field else 0))
    return tuple(rows)


def read_in_root(root: str, path: str) -> bytes:
    """A regular file's content, with `root` as the root of every link; b"" if there is none.

    Raises ResourceExhaustedError, KernelError.
    """
    with kernel_call("open", root):
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = _open_in_root(directory, path)
    finally:
        os.close(directory)
    if fd is None:
        return b""
    try:
        with kernel_call("read", path):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return b""
            return _read_capped(fd, path)
    finally:
        os.close(fd)


def _open_in_root(directory: int, path: str) -> int | None:
    # Not blocking: the image may hold a FIFO in the file's place.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    how = bytearray(struct.pack("=QQQ", flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS))
    try:
        return syscall("openat2", SYS_OPENAT2, directory, encode(path), how, len(how), what=path)
    except KernelError as error:
        if error.number not in _ABSENT:  # a corrupt layer (EIO) is no image without users
            raise
        return None


def _read_capped(fd: int, path: str) -> bytes:
    content = bytearray()
    while part := os.read(fd, 1 << 16):
        content += part
        if len(content) > MAX_FILE:
            raise ResourceExhaustedError(f"/{path} of the image has more than {MAX_FILE} bytes")
    return bytes(content)
