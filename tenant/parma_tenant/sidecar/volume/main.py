"""`parma-volume`: opens the volumes in turn, says so, and closes them on SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from parma_api.status import ApiError, DataLossError, UnavailableError
from parma_tenant.sidecar.skr.client import release_key
from parma_tenant.sidecar.volume.attach import attach
from parma_tenant.sidecar.volume.config import Settings, SettingsError, Volume, read_settings
from parma_tenant.sidecar.volume.opening import (
    clear_place,
    free_name,
    is_shared,
    mount_volume,
    open_volume,
    unmount_volume,
)
from parma_tenant.volume.key import Kind, VolumeKey
from parma_tenant.volume.release import key_from_jwk

_log = logging.getLogger("parma.volume")
_PAUSE: Final = 2.0
_MOUNTS: Final = Path("/proc/self/mountinfo")


def main() -> int:
    """The exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    try:
        settings = read_settings(os.environ)
        with ExitStack() as undo:
            for volume in settings.volumes:
                _open(settings, volume, undo)
            _log.info("ready")
            signal.sigwait(stop)
    except SettingsError as error:
        return _fail(error.message, 2)
    except ApiError as error:
        return _fail(error.message, 1)
    return 0


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"error: parma-volume: {message}\n")
    return status


def _open(settings: Settings, volume: Volume, undo: ExitStack) -> None:
    """Key, blob, tables, mount. Raises ApiError."""
    key = obtain_key(settings, volume, release_key, time.monotonic)
    clear_place(volume.mount_point)
    name = free_name(volume.mount_point)
    device = attach(volume, key, settings.trusted_roots)
    undo.callback(device.close)
    opened = open_volume(key, device.number, name)
    undo.callback(opened.close)
    mount_volume(key, opened.node, volume.mount_point)
    undo.callback(unmount_volume, volume.mount_point)
    if not is_shared(_MOUNTS.read_text(), os.path.dirname(volume.mount_point)):  # noqa: PTH120
        _log.warning(
            "%s is on no shared mount: other containers will not see it (mountPropagation: Bidirectional)",
            volume.mount_point,
        )
    _log.info("%s is mounted at %s, %s", volume.kid, volume.mount_point, key.kind.label)


def obtain_key(
    settings: Settings,
    volume: Volume,
    ask: Callable[..., dict[str, Any]],
    clock: Callable[[], float],
    pause: float = _PAUSE,
) -> VolumeKey:
    """The released key. Raises PermissionDeniedError (no key for this group), DataLossError, UnavailableError."""
    deadline = clock() + settings.patience
    endpoints = (settings.maa_endpoint, settings.akv_endpoint)
    jwk: dict[str, Any] | None = None
    while jwk is None:
        try:
            jwk = ask(*endpoints, volume.kid, port=settings.skr_port)
        except UnavailableError as error:
            if clock() >= deadline:
                raise
            _log.info("%s: %s", volume.kid, error.message)
            time.sleep(pause)
    key = key_from_jwk(jwk)
    if (key.kind is Kind.READ_WRITE) is not volume.read_write:
        raise DataLossError(
            f"{volume.kid} is the key of a {key.kind.label} volume, which the settings do not say"
        )
    return key


if __name__ == "__main__":
    sys.exit(main())
