"""A container group as its relying party sees it, on a stub processor, without a VM: to try a broker on one machine.

    stub_group.py root FOLDER                 makes the stub's root certificate, prints its path
    stub_group.py run FOLDER --policy FILE --measurement HEX --roots PEM [--port N]
                                              a processor launched under that policy, and the key-release sidecar,
                                              which answers on localhost until it is killed

Nothing here is confidential, and every token that comes of it says so. In a real group the policy is enforced, and the
sidecar is a container (docs/relying-parties.md).
"""

# ruff: noqa: T201 (an example talks on the terminal)
from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from parma_api.snp import psp_wire
from parma_shim.psp.chain import load_or_create
from parma_tenant.sidecar.skr.main import serving
from parma_tenant.sidecar.skr.options import Options

ROOT = "Milan.ark.pem"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("root", "run"):
        commands.add_parser(name).add_argument("folder", type=Path)
    run = commands.choices["run"]
    for option in ("--policy", "--roots"):
        run.add_argument(option, type=Path, required=True)
    run.add_argument("--measurement", required=True)
    run.add_argument("--port", type=int, default=8080)
    chosen = parser.parse_args()
    if chosen.command == "root":
        load_or_create(chosen.folder)
        print(chosen.folder / ROOT)
    else:
        asyncio.run(serve(chosen))


async def serve(chosen: argparse.Namespace) -> None:
    """Processor, its socket, and the sidecar, until killed."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    host_data = hashlib.sha256(chosen.policy.read_bytes()).hexdigest()
    launch = {
        "measurement": chosen.measurement,
        "host_data": host_data,
        "folder": str(chosen.folder),
    }
    with tempfile.TemporaryDirectory() as folder, processor(launch) as (channel, certificates):
        async with report_socket(f"{folder}/report.sock", channel):
            context = Path(folder) / "security-context-example"
            context.mkdir()
            (context / "host-amd-cert-base64").write_bytes(certificates)
            options = Options(port=chosen.port, roots=chosen.roots.read_bytes())
            environment = {"PARMA_REPORT_SOCKET": f"{folder}/report.sock"}
            async with serving(options, environment, Path(folder)) as port:
                print(f"a group with host_data {host_data}: sidecar on port {port}", flush=True)
                await stop.wait()


@contextlib.contextmanager
def processor(launch: dict[str, str]) -> Iterator[tuple[socket.socket, bytes]]:
    """The stub processor, launched with these values for as long as it is used; what its host hands over."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "parma_shim.psp.serve", str(theirs.fileno())]
    with (
        ours,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]
        ) as process,
    ):
        theirs.close()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(launch).encode())
        process.stdin.close()
        yield ours, base64.b64encode(process.stdout.read())
        ours.shutdown(socket.SHUT_RDWR)


@contextlib.asynccontextmanager
async def report_socket(path: str, channel: socket.socket) -> AsyncIterator[None]:
    """Many connections, one processor: as the guest's agent does it."""
    from_psp, to_psp = await asyncio.open_connection(sock=channel)
    turn = asyncio.Lock()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with turn:
            kind = await reader.readexactly(1)
            to_psp.write(kind + await reader.readexactly(psp_wire.body_size(kind[0])))
            header = await from_psp.readexactly(psp_wire.ANSWER_HEADER_SIZE)
            _, size, *_ = psp_wire.decode_answer_header(header)
            writer.write(header + await from_psp.readexactly(size))
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        yield


if __name__ == "__main__":
    main()
