"""`delete`: removes what is left of a container, and of its group when the group's shim is dead.

containerd runs it after every removal too, so most calls find nothing to do. It never harms a live pod: the VMM is
killed only when nobody serves the socket and the shim's process is gone. Ten at once take turns at the group's lock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Sequence

from parma_api.status import ApiError
from parma_shim.lifecycle.arguments import Arguments, require_identity
from parma_shim.lifecycle.lock import is_served, locked
from parma_shim.lifecycle.mounts import unmount_below
from parma_shim.lifecycle.places import (
    Group,
    group_of_bundle,
    group_places,
    membership,
    read_annotations,
    run_directory,
)
from parma_shim.lifecycle.protowire import bytes_field, number_field, timestamp
from parma_shim.lifecycle.state import GroupState, is_alive, read_state

KILLED = 128 + signal.SIGKILL
LOCK_TIMEOUT = 3.0
EXIT_TIMEOUT = 1.5
"""Seconds that a shim which has closed its socket may take to be gone, and a VMM to die."""
CGROUP_TIMEOUT = 1.5
"""Seconds that all of a pod's cgroups together may stay busy after their last process has ended."""
_POLL = 0.005


def delete(arguments: Arguments, bundle: str) -> tuple[bytes, list[str]]:
    """A marshalled DeleteResponse{pid=1, exit_status=2, exited_at=3}, and warnings. Raises UsageError."""
    require_identity(arguments)
    warnings = unmount_below(bundle)
    group = _group(arguments, bundle)
    if group is not None and os.path.isdir(group.directory):  # noqa: PTH112
        try:
            with locked(group, LOCK_TIMEOUT):
                warnings += _clean(group)
        except (ApiError, OSError) as error:
            warnings.append(f"{group.directory} is not cleaned up: {error}")
    answer = number_field(2, KILLED) + bytes_field(3, timestamp(time.time_ns()))
    return answer, warnings


def _group(arguments: Arguments, bundle: str) -> Group | None:
    run = run_directory(os.environ)
    found = group_of_bundle(bundle, run)
    if found is not None:
        return found
    with contextlib.suppress(ApiError):
        try:
            group = membership(read_annotations(bundle), arguments.id).group
        except ApiError:
            group = arguments.id
        return group_places(run, arguments.address, arguments.namespace, group)
    return None


def _clean(group: Group) -> list[str]:
    if is_served(group.socket):
        return []
    state = read_state(group.state)
    if not _wait_gone(state.shim_pid, state.shim_start):
        return [f"shim {state.shim_pid} still runs and serves nobody: left alone"]
    warnings = _end_vmm(state)
    if state.netns:
        warnings += _clean_network(state.netns)
    remove_cgroups(state.cgroups)
    warnings += unmount_below(group.directory)
    _remove(group)
    return warnings


def remove_cgroups(paths: Sequence[str]) -> None:
    """Innermost first; one whose last process has just ended is busy for a moment, one that is in use stays."""
    until = time.monotonic() + CGROUP_TIMEOUT
    for path in reversed(paths):
        while True:
            try:
                os.rmdir(path)  # noqa: PTH106
            except OSError as error:
                if error.errno == errno.EBUSY and time.monotonic() < until:
                    time.sleep(_POLL)
                    continue
            break


def _end_vmm(state: GroupState) -> list[str]:
    if not is_alive(state.vmm_pid, state.vmm_start):
        return []
    try:
        fd = os.pidfd_open(state.vmm_pid)
    except OSError:
        return []
    try:
        if is_alive(state.vmm_pid, state.vmm_start):  # the descriptor is of that very process
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        return []
    finally:
        os.close(fd)
    if not _wait_gone(state.vmm_pid, state.vmm_start):
        return [f"VMM {state.vmm_pid} is killed and not gone yet"]
    return []


def _wait_gone(pid: int, started: int) -> bool:
    until = time.monotonic() + EXIT_TIMEOUT
    while is_alive(pid, started):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL)
    return True


def _clean_network(netns: str) -> list[str]:
    """Only after a shim died: what this imports costs as much as the rest."""
    import asyncio
    from pathlib import Path

    from parma_shim.net.pod import clean

    if not os.path.exists(netns):  # noqa: PTH110
        return []
    try:
        asyncio.run(clean(Path(netns)))
    except (ApiError, OSError) as error:
        return [f"the pod's network namespace is not cleaned up: {error}"]
    return []


def _remove(group: Group) -> None:
    """The lock goes last, still held: who waits for it sees that its name means nothing any more.

    A shim that ends by itself removes the same folder meanwhile: what is gone already is no matter.
    """
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(group.directory):  # noqa: PTH208
            if name != "lock":
                _remove_tree(f"{group.directory}/{name}")
        _remove_tree(group.lock)
        os.rmdir(group.directory)  # noqa: PTH106


def _remove_tree(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
            for name in os.listdir(path):  # noqa: PTH208
                _remove_tree(f"{path}/{name}")
            os.rmdir(path)  # noqa: PTH106
        else:
            os.unlink(path)  # noqa: PTH108
