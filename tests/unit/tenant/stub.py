"""The stub PSP's process, and its reports as a workload gets them: over a Unix socket."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from parma_api.snp import psp_wire
from parma_tenant.claims.evidence import Demand
from parma_tenant.claims.source import SocketSource
from parma_tenant.verify.expectation import Expectation
from parma_tenant.verify.intake import load_certificate
from parma_tenant.verify.roots import with_trusted

MEASUREMENT = hashlib.sha384(b"the image").digest()
POLICY = b'package policy\n\napi_version := "0.11.0"\n'
HOST_DATA = hashlib.sha256(POLICY).digest()


@dataclass(frozen=True)
class StubPsp:
    """One launch: where its socket is, the root to trust, and the THIM JSON that a host hands over."""

    path: str
    root: Path
    certificates: bytes
    host_data: bytes

    @property
    def source(self) -> SocketSource:
        return SocketSource(self.path)

    def demand(self, host_data: bytes | None = None, measurement: bytes = MEASUREMENT) -> Demand:
        expectation = Expectation(
            measurement=(measurement,), host_data=(host_data or self.host_data,)
        )
        return Demand(expectation, with_trusted([load_certificate(self.root.read_bytes())]))


@contextmanager
def stub_psp(
    folder: Path, authority: Path, host_data: bytes = HOST_DATA, **more: object
) -> Iterator[StubPsp]:
    """A process with these launch values; `authority` is the folder of its root, made when there is none."""
    ours, theirs = socket.socketpair()
    values = {
        "measurement": MEASUREMENT.hex(),
        "host_data": host_data.hex(),
        "folder": str(authority),
        **more,
    }
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "parma_shim.psp.serve", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )
        )
        theirs.close()
        stack.callback(ours.close)
        stack.callback(process.kill)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(values).encode())
        process.stdin.close()
        certificates = process.stdout.read()
        path = str(folder / "report.sock")
        stack.enter_context(_relay(path, ours))
        yield StubPsp(path, authority / "Milan.ark.pem", certificates, host_data)


@contextmanager
def _relay(path: str, psp: socket.socket) -> Iterator[None]:
    """As the agent does: many connections, one processor."""
    lock = threading.Lock()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        thread = threading.Thread(target=_accept, args=(listener, psp, lock), daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _accept(listener: socket.socket, psp: socket.socket, lock: threading.Lock) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer, lock, suppress(EOFError, OSError):
            kind = _exactly(peer, 1)
            psp.sendall(kind + _exactly(peer, psp_wire.body_size(kind[0])))
            header = _exactly(psp, psp_wire.ANSWER_HEADER_SIZE)
            peer.sendall(header + _exactly(psp, psp_wire.decode_answer_header(header)[1]))


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
