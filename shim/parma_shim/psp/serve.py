"""The PSP's process: `python -m parma_shim.psp.serve FD`, launch values as JSON on standard input, once.

First it tells the certificates that belong to its reports on standard output, in the form of Azure's certificate
service. FD is a connected stream socket whose other end is the VM's virtio-serial port `parma.psp`. The process ends
when that end closes. It alone holds the signing key; there is no message that sets a value.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
from pathlib import Path

from parma_api.snp import psp_wire
from parma_api.status import ApiError, InvalidArgumentError
from parma_shim.psp.chain import load_or_create
from parma_shim.psp.chips import register
from parma_shim.psp.launch import read_launch
from parma_shim.psp.psp import LaunchValues, Processor

_log = logging.getLogger("parma.psp")


def read_exactly(peer: socket.socket, size: int) -> bytes | None:
    """`size` bytes, or None when the stream ends before."""
    data = bytearray()
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)


def serve(processor: Processor, peer: socket.socket) -> None:
    """Answers requests until the peer closes, or sends what no request begins with."""
    while kind := read_exactly(peer, 1):
        try:
            size = psp_wire.body_size(kind[0])
        except InvalidArgumentError as error:
            _log.warning("stub PSP: %s", error.message)
            peer.sendall(psp_wire.encode_answer(psp_wire.Status.INVALID_PARAMETER))
            return
        body = read_exactly(peer, size)
        if body is None:
            return
        peer.sendall(processor.answer(kind + body))


def _tell(certificates: bytes) -> None:
    """The reader may be gone already. The descriptor stays taken, so that nothing else gets its number."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, certificates)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def read_values(text: str, folder_file: str = "launch.json") -> tuple[LaunchValues, Path]:
    """Launch values and the authorities' folder, from the shim's JSON and the file. Raises ApiError, OSError.

    What the shim says cannot be said otherwise by the file.
    """
    values = _object(text, "standard input")
    folder = Path(str(values.pop("folder", "")))
    try:
        more = _object((folder / folder_file).read_text(), folder_file)
    except FileNotFoundError:
        more = {}
    return read_launch(more | values), folder


def _object(text: str, what: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{what} is no JSON") from error
    if not isinstance(found, dict):
        raise InvalidArgumentError(f"{what} is no JSON object")
    return found


def main() -> int:
    """Reads the launch values, then serves. Exit 0 when the VM is gone, 1 when such a guest is not launched."""
    try:
        launch, folder = read_values(sys.stdin.read())
        authority = load_or_create(folder, launch.line, launch.signer)
        processor = Processor(authority, launch)
        register(folder, launch)
    except (ApiError, OSError) as error:
        sys.stderr.write(f"stub PSP: {getattr(error, 'message', error)}\n")
        return 1
    with socket.socket(fileno=int(sys.argv[1])) as peer:
        _tell(processor.certificates)
        serve(processor, peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
