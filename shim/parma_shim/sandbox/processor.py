"""The stub's security processor beside a machine of the stub image: a process of its own, which alone has the key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping

from parma_api.channel.stream import FdStream, StreamClosedError
from parma_api.status import UnavailableError
from parma_shim.agent.text import clean
from parma_shim.vmm.errors import VmmSetupError

CERTIFICATES_DEADLINE = 90.0
"""Seconds; the first one on a host makes two RSA keys of 4096 bits, and on a busy one that takes its time."""
MAX_CERTIFICATES = 64 << 10


class StubProcessor:
    """Made by `start_processor`; `close` must be called in the end."""

    def __init__(self, process: subprocess.Popen[bytes], told: FdStream) -> None:
        self._process: subprocess.Popen[bytes] | None = process
        self._told = told
        self._certificates: bytes | None = None

    async def certificates(self) -> bytes:
        """Those that belong to its reports, in the form of Azure's certificate service. Raises UnavailableError."""
        if self._certificates is None:
            self._certificates = await self._read()
            self._told.abort()
        return self._certificates

    async def _read(self) -> bytes:
        """A JSON object of texts alone, so that the first brace ends it; anything else is why it has ended."""
        found = bytearray()
        try:
            async with asyncio.timeout(CERTIFICATES_DEADLINE):
                while not found.endswith(b"}") and len(found) < MAX_CERTIFICATES:
                    found += (part := await self._told.read())
                    if not part:
                        break
        except (StreamClosedError, TimeoutError):
            raise UnavailableError(
                f"the stub PSP tells no certificates in {CERTIFICATES_DEADLINE:g} s"
            ) from None
        if not found.startswith(b"{"):
            why = clean(found.decode(errors="replace").strip().rpartition("\n")[2], 200)
            raise UnavailableError(f"the stub PSP has ended: {why or 'it says nothing'}")
        return bytes(found)

    def kill(self) -> None:
        """Without waiting. Idempotent."""
        self._told.abort()
        if self._process is not None:
            self._process.kill()

    async def close(self) -> None:
        """Ends it and reaps it. Idempotent."""
        self.kill()
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(process.wait)


def start_processor(fd: int, values: Mapping[str, str]) -> StubProcessor:
    """Starts it with its end of the guest's port and its launch values. Raises VmmSetupError.

    Isolated as the shim itself, with the shim's folders to import from.
    """
    program = (
        "import sys\n"
        f"sys.path[:0] = {[path for path in sys.path if path]!r}\n"
        "from parma_shim.psp.serve import main\n"
        "sys.exit(main())\n"
    )
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    told = FdStream(read_fd, read_fd)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program, str(fd)],
            stdin=subprocess.PIPE,
            stdout=write_fd,
            stderr=write_fd,
            pass_fds=(fd,),
        )
    except OSError as error:
        told.abort()
        raise VmmSetupError(f"the stub's processor cannot be started: {error.strerror}") from error
    finally:
        os.close(write_fd)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(values).encode())
    return StubProcessor(process, told)
