"""A key for dm-crypt, seen by the loading thread alone (keyrings(7))."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from parma_guest.linux.libc import SYS_ADD_KEY, SYS_KEYCTL, syscall

_KEY_SPEC_THREAD_KEYRING = -1
_KEYCTL_UNLINK = 9


def erase(key: bytearray) -> None:
    """Overwrite the key in place. Best effort: what copies the interpreter made is unknown."""
    key[:] = bytes(len(key))


@contextmanager
def logon_key(description: str, key: bytearray) -> Iterator[None]:
    """The key in this thread's keyring while inside; erased from `key` and unlinked afterwards.

    A table must be loaded by the same thread: another one gets ENOKEY. A mapping that was loaded keeps its own copy.
    """
    serial = 0
    try:
        serial = syscall(
            "add_key",
            SYS_ADD_KEY,
            b"logon",
            description.encode(),
            key,
            len(key),
            _KEY_SPEC_THREAD_KEYRING,
            what=description,
        )
        erase(key)
        yield
    finally:
        erase(key)
        if serial:
            syscall(
                "keyctl",
                SYS_KEYCTL,
                _KEYCTL_UNLINK,
                serial,
                _KEY_SPEC_THREAD_KEYRING,
                what=description,
            )
