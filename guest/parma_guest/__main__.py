"""The agent, PID 1 of the utility VM. Its end is the machine's end."""

from __future__ import annotations

import os
import sys

from parma_api.wire import lean
from parma_guest.boot.prewarm import prewarm

if os.getpid() == 1:
    prewarm()
lean.prepare()

import asyncio  # noqa: E402 (the lines above make the next imports cheap)

from parma_api.status import ApiError  # noqa: E402
from parma_guest.agent.boot import run  # noqa: E402
from parma_guest.agent.hostlog import say  # noqa: E402
from parma_guest.attest.image import Kernel, require_startable, this_image  # noqa: E402

# include/uapi/linux/reboot.h, arch/x86/entry/syscalls/syscall_64.tbl
_SYS_REBOOT, _MAGIC_1, _MAGIC_2, _POWER_OFF = 169, 0xFEE1DEAD, 672274793, 0x4321FEDC


def main() -> int:
    """Serve until the machine ends."""
    try:
        image = this_image()
        say(f"agent, {image.value} image")
        require_startable(image, Kernel())
        asyncio.run(run(image))
    except BaseException as error:  # noqa: BLE001 (the machine ends with it, and says why)
        say(f"agent failed: {_reason(error)}")
    finally:
        _power_off()
    return 1


def _reason(error: BaseException) -> str:
    """Messages of our own errors are fit for the host; of others only the kind and the place are told."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, ApiError):
        return error.message
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}"


def _power_off() -> None:
    if os.getpid() != 1:
        return
    from parma_guest.linux.libc import syscall

    os.sync()
    syscall("reboot", _SYS_REBOOT, _MAGIC_1, _MAGIC_2, _POWER_OFF, None)


if __name__ == "__main__":
    sys.exit(main())
