"""A utility VM of one image under QEMU's emulation: console lines with their times, and a port to ask over."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DEADLINE = 90.0


@dataclass
class Machine:
    """A running VM."""

    process: subprocess.Popen[bytes]
    port: socket.socket
    started: float
    lines: list[tuple[float, str]] = field(default_factory=list)
    _partial: bytes = b""

    def _pump(self, timeout: float) -> bool:
        """Reads what the console has; false at its end."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        if not select.select([fd], [], [], timeout)[0]:
            return True
        data = os.read(fd, 65536)
        *whole, self._partial = (self._partial + data).split(b"\n")
        now = time.monotonic() - self.started
        self.lines += [(now, line.decode(errors="replace").strip()) for line in whole]
        return bool(data)

    def ask(self, question: str) -> tuple[str, float]:
        """The toy's answer and when it came, in seconds since the start. The host may ask before the guest listens."""
        self.port.send(question.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            assert time.monotonic() - self.started < DEADLINE, self.text
            assert self._pump(0.005), f"the VM ended: {self.text}"
            with contextlib.suppress(BlockingIOError):
                answer += self.port.recv(65536)
        return answer.decode().strip(), time.monotonic() - self.started

    def run_out(self) -> int:
        """Waits for the VM's own end; its exit status."""
        while self._pump(1.0):
            assert time.monotonic() - self.started < DEADLINE, self.text
        return self.process.wait(10)

    @property
    def text(self) -> str:
        """The console so far."""
        return "\n".join(line for _, line in self.lines)

    def when(self, part: str) -> float:
        """When the first line with this text came."""
        return next(at for at, line in self.lines if part in line)


@contextlib.contextmanager
def boot(image: Path, kernel: str, folder: Path, cmdline: str | None = None) -> Iterator[Machine]:
    """Starts a VM of the image; it is gone when the block is left."""
    described = json.loads((image / "image.json").read_text())
    path = folder / "port"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        command = [
            *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2"),
            *("-m", "512", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
            *("-kernel", str(image / kernel), "-initrd", str(image / "initrd.img")),
            *("-append", cmdline or described["cmdline"]),
            *("-drive", f"if=none,id=root,file={image / 'root.img'},format=raw,readonly=on"),
            *("-device", "virtio-blk-pci,drive=root", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=toy,path={path}", "-device"),
            "virtserialport,chardev=toy,name=parma.toy",
        ]
        started = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            port, _ = server.accept()
            with port:
                port.setblocking(False)
                yield Machine(process, port, started)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
            path.unlink()
