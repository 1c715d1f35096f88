"""The handler in the node's containerd: written, taken out, and containerd restarted only if its file has changed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from parma_api.status import ApiError, FailedPreconditionError
from parma_shim.doctor.containerd_config import plan, without
from parma_shim.node.host import NodeHost

_BACKUP = ".before-parma"


def add(host: NodeHost) -> bool:
    """Whether anything had to change. A containerd that does not come up with it gets its old file back.

    Raises what `containerd_config.plan` raises, and FailedPreconditionError.
    """
    path = host.path(host.containerd_config)
    old = _read(path)
    result = plan(old or "", _version_of_new_file(host))
    if not result.changes:
        return False
    if old is not None and not (backup := _backup(path)).exists():
        _write(backup, old)
    _write(path, result.text)
    try:
        host.restart_containerd()
    except ApiError as error:
        _restore(path, old)
        with contextlib.suppress(ApiError):
            host.restart_containerd()
        raise FailedPreconditionError(
            f"containerd does not start with the handler in {host.containerd_config}; "
            f"the old file is back: {error.message}"
        ) from error
    return True


def remove(host: NodeHost) -> bool:
    """Whether anything had to change. Raises as `add`."""
    path = host.path(host.containerd_config)
    old = _read(path)
    if old is None or (text := without(old)) == old:
        return False
    backup = _backup(path)
    if (
        not backup.exists()
        and not text.replace("version = 2", "").replace("version = 3", "").strip()
    ):
        path.unlink()  # it was made for the handler alone
    else:
        _write(path, text)
    if _read(backup) == text:
        backup.unlink()
    host.restart_containerd()
    return True


def _version_of_new_file(host: NodeHost) -> int:
    """containerd 2 reads version 3, before that 2 is the newest."""
    words = host.containerd_version().split()
    return 3 if any(word.removeprefix("v").startswith("2.") for word in words) else 2


def _backup(path: Path) -> Path:
    return path.with_name(path.name + _BACKUP)


def _restore(path: Path, old: str | None) -> None:
    if old is None:
        path.unlink(missing_ok=True)
    else:
        _write(path, old)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise FailedPreconditionError(f"{path} cannot be read: {error}") from error


def _write(path: Path, text: str) -> None:
    """In one step, with the mode of the file that it replaces. Raises FailedPreconditionError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.replace(path)
    except OSError as error:
        raise FailedPreconditionError(f"{path} cannot be written: {error}") from error
