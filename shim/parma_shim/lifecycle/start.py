"""`start`: prints the address of the group's socket and is gone.

For the first container of a group it binds and listens, then starts the serving process with the listening descriptor:
containerd can connect at once, the queue of the socket holds it until the server is up. On standard output there is the
address and nothing else; containerd reads that pipe to its end, so the child keeps neither of its ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from parma_api.status import UnavailableError
from parma_shim.errors import UsageError
from parma_shim.lifecycle.arguments import Arguments, require_identity
from parma_shim.lifecycle.bootstrap import parse_bootstrap
from parma_shim.lifecycle.lock import is_served, locked
from parma_shim.lifecycle.places import (
    Group,
    group_places,
    membership,
    read_annotations,
    run_directory,
)
from parma_shim.lifecycle.protowire import MAX_MESSAGE

LISTEN_FD = 3
BACKLOG = 128
LOCK_TIMEOUT = 20.0
_OOM_SCORE = "/proc/self/oom_score_adj"
_MAX_OOM_SCORE = 1000


def start(arguments: Arguments, bundle: str) -> str:
    """The address. Raises UsageError, UnavailableError."""
    require_identity(arguments)
    options = parse_bootstrap(_stdin(), arguments.id, arguments.namespace)
    member = membership(read_annotations(bundle), arguments.id)
    group = group_places(
        run_directory(os.environ), arguments.address, arguments.namespace, member.group
    )
    with locked(group, LOCK_TIMEOUT):
        if not is_served(group.socket):
            if member.joins:
                _remove_if_empty(group)
                raise UsageError(
                    f"the pod {member.group[:64]} of this container is not running any more"
                )
            _serve(arguments._replace(shim_cgroup=options.shim_cgroup), bundle, group)
    _write_address(bundle, group)
    return group.address


def _stdin() -> bytes:
    """All of it; a terminal or nothing at all is empty."""
    try:
        if os.isatty(0):
            return b""
        data = bytearray()
        while part := os.read(0, 65536):
            data += part
            if len(data) > MAX_MESSAGE:
                raise UsageError("too much on standard input")
        return bytes(data)
    except OSError:
        return b""


def _serve(arguments: Arguments, bundle: str, group: Group) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(group.socket)  # noqa: PTH108
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(group.socket)
        except OSError as error:
            raise UnavailableError(f"{group.socket} cannot be made: {error.strerror}") from error
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        _raise_oom_score()
        _spawn(arguments, bundle, group, listener.fileno())


def _spawn(arguments: Arguments, bundle: str, group: Group, listener: int) -> None:
    words = [
        *program(),
        *("-namespace", arguments.namespace, "-address", arguments.address),
        *("-id", arguments.id, "-bundle", bundle, "-socket", group.socket),
        *(("-shim-cgroup", arguments.shim_cgroup) if arguments.shim_cgroup else ()),
        *(("-debug",) if arguments.debug else ()),
        "serve",
    ]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.posix_spawn(
        words[0],
        words,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, listener, LISTEN_FD),
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, group.errors, append, 0o600),
        ],
        setsid=True,
    )


def program() -> list[str]:
    """The words that started this program, up to its arguments."""
    count = len(sys.orig_argv) - (len(sys.argv) - 1)
    return [sys.executable, *sys.orig_argv[1:count]]


def _raise_oom_score() -> None:
    """One above containerd's, so that the kernel takes the shim before the daemon. Inherited by the server."""
    with contextlib.suppress(OSError, ValueError), open(_OOM_SCORE, "r+") as file:  # noqa: PTH123
        score = int(file.read())
        file.seek(0)
        file.write(str(min(score + 1, _MAX_OOM_SCORE)))


def _write_address(bundle: str, group: Group) -> None:
    """containerd 1.6 and 1.7 find the shim again by this file only. Two starts in one bundle must not share a name."""
    temporary = f"{bundle}/.address.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(group.address)
        os.replace(temporary, f"{bundle}/address")  # noqa: PTH105
    except OSError as error:
        raise UsageError(f"{bundle}/address cannot be written: {error.strerror}") from error


def _remove_if_empty(group: Group) -> None:
    """A refused start leaves no folder behind that it made itself."""
    if os.listdir(group.directory) == ["lock"]:  # noqa: PTH208
        os.unlink(group.lock)  # noqa: PTH108
        os.rmdir(group.directory)  # noqa: PTH106
