"""A stand-in for the agent: answers lines on the virtio-serial port `parma.toy`.

It imports what the agent imports before its first answer, so that the boot's phases mean something.
"""

# ruff: noqa: E402 (the first line is to come before the imports that take time)
import time


def say(text: str) -> None:
    print(f"toy-agent: {time.clock_gettime(time.CLOCK_BOOTTIME):.3f} {text}", flush=True)


say("agent")

import asyncio
import ctypes
import os
from pathlib import Path

import betterproto

PORT = "parma.toy"
LIST = Path("/usr/lib/parma/modules.list")
FINIT_MODULE = 313


def find_port() -> str:
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").exists() and (port / "name").read_text().strip() == PORT:
            return f"/dev/{port.name}"
    raise SystemExit(f"toy-agent: no port {PORT}")


def load_modules() -> str:
    """Loads every group; answers what failed, as `group:module:errno`."""
    libc = ctypes.CDLL("libc.so.6", use_errno=True)
    failed = []
    for line in LIST.read_text().splitlines():
        group, _, path = line.split()
        fd = os.open(path, os.O_RDONLY)
        if libc.syscall(FINIT_MODULE, fd, b"", 0) and ctypes.get_errno() != 17:
            failed.append(f"{group}:{Path(path).stem}:{ctypes.get_errno()}")
        os.close(fd)
    return " ".join(failed) or "all"


def world() -> str:
    """What init has left: mounts by target, environment, process number."""
    mounts = sorted(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return f"{os.getpid()} {','.join(mounts)} {','.join(sorted(os.environ))}"


def write_root() -> str:
    """Tries to write to the root, as file and as device."""
    results = []
    for path in ("/etc/hostname", "/usr/new"):
        try:
            Path(path).write_text("x")
            results.append("written")
        except OSError as error:
            results.append(str(error.errno))
    return " ".join(results)


def ping() -> str:
    return f"pong {type(betterproto.Message).__name__}"


COMMANDS = {
    "ping": ping,
    "modules": load_modules,
    "world": world,
    "write": write_root,
}


async def serve(fd: int) -> None:
    loop = asyncio.get_running_loop()
    while True:
        asked = (await loop.run_in_executor(None, os.read, fd, 64)).decode().strip()
        if asked:
            os.write(fd, COMMANDS[asked]().encode() + b"\n")
        else:
            await asyncio.sleep(0.01)


def main() -> int:
    say("imports done")
    asyncio.run(serve(os.open(find_port(), os.O_RDWR)))
    return 0
