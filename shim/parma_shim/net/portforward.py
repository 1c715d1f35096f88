"""Port-forward: containerd dials the loopback of the pod's namespace, where a VM's ports are not.

An nft rule in that namespace sends every TCP connection to loopback to two listeners of the shim's; the port that was
meant is had from the connection (reference/containerd.md 4.5). `install` and `remove` run inside the namespace.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import shutil
import socket
import struct
import subprocess
from dataclasses import dataclass

from parma_shim.net.errors import NetworkError, NetworkSetupError

TABLE = "parma_forward"
BACKLOG = 64
NFT_DEADLINE = 10.0
SO_ORIGINAL_DST = 80
"""include/uapi/linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST has the same number."""
_PORT_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class PortRedirect:
    """Listening sockets, non-blocking: 127.0.0.1, and ::1 where the namespace has IPv6, at the same port."""

    port: int
    listeners: tuple[socket.socket, ...]

    def close(self) -> None:
        """Closes the listeners; `PodNetwork.unplug` removes the rule."""
        for listener in self.listeners:
            listener.close()


def install() -> PortRedirect:
    """Listens, then redirects. Raises NetworkError, NetworkSetupError."""
    redirect = _listen()
    try:
        _nft(_rules(redirect.port))
    except BaseException:
        redirect.close()
        raise
    return redirect


def remove() -> None:
    """Removes the redirect; nothing to do if there is none. Raises NetworkError."""
    _nft(f"add table inet {TABLE}\ndelete table inet {TABLE}\n")


def original_destination(connection: socket.socket) -> tuple[str, int]:
    """Address and port that the client dialled. Raises NetworkError for a connection that nobody redirected."""
    try:
        if connection.family == socket.AF_INET6:
            packed = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
            return str(ipaddress.IPv6Address(packed[8:24])), struct.unpack_from("!H", packed, 2)[0]
        packed = connection.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
        return str(ipaddress.IPv4Address(packed[4:8])), struct.unpack_from("!H", packed, 2)[0]
    except OSError as error:
        raise NetworkError(
            f"a connection to the port-forward proxy was not redirected: {error.strerror}"
        ) from error


def _rules(port: int) -> str:
    return (
        f"add table inet {TABLE}\n"
        f"delete table inet {TABLE}\n"
        f"table inet {TABLE} {{\n"
        "  chain output {\n"
        "    type nat hook output priority -100;\n"
        f'    oifname "lo" meta l4proto tcp tcp dport != {port} redirect to :{port}\n'
        "  }\n"
        "}\n"
    )


def _nft(script: str) -> None:
    program = shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        raise NetworkSetupError("port-forward needs `nft`: install nftables")
    try:
        done = subprocess.run(
            [program, "-f", "-"],
            input=script,
            capture_output=True,
            text=True,
            timeout=NFT_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetworkError(f"nft did not run: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise NetworkError(f"nft refused the port-forward rule: {lines[0][:200]}")


def _listen() -> PortRedirect:
    """One port that is free for both families; another process of the pod's namespace may hold one of them."""
    for _ in range(_PORT_ATTEMPTS):
        with contextlib.ExitStack() as undo:
            first = undo.enter_context(_listener(socket.AF_INET, "127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second = _listener(socket.AF_INET6, "::1", port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                undo.pop_all()
                return PortRedirect(port, (first,))
            undo.pop_all()
            return PortRedirect(port, (first, second))
    raise NetworkError("no port of the pod's loopback is free for the port-forward proxy")


def _listener(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
