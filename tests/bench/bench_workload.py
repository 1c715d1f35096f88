"""nginx and redis in the utility VM: under the strict policy, against an allow-all policy.

Both pods run at once and are asked in turns, from the same place over the pod's network.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from parma_shim.demo import images
from parma_shim.demo.group import WEB, Member
from tests.bench.cluster import ROOT, Cluster, cluster
from tests.bench.row import Rows, row, scaled
from tests.e2e.observe import wait_for

BATCHES: Final = 20
"""21 batches are 840 requests of one connection: nginx closes it after 1000."""
CALLS: Final = 40
REDIS: Final = Member(
    "redis",
    images.REDIS,
    ("/usr/bin/redis-server", "--save", "", "--protected-mode", "no", "--bind", "0.0.0.0"),
)
_CLIENT: Final = """
import json, socket, sys, time
addresses, port, batches, calls, request, end = json.loads(sys.argv[1])
request, end = request.encode(), end.encode()
socks = [socket.create_connection((a, port), 30) for a in addresses]
times = [[] for _ in socks]
for sock in socks:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for batch in range(batches + 1):
    for sock, kept in zip(socks, times):
        begin = time.perf_counter()
        for _ in range(calls):
            sock.sendall(request)
            answer = b""
            while end not in answer:
                part = sock.recv(65536)
                assert part, answer
                answer += part
        if batch:
            kept.append((time.perf_counter() - begin) / calls)
print(json.dumps(times))
"""
_HTTP: Final = ("GET / HTTP/1.1\r\nHost: pod\r\n\r\n", "</h1>\n")
_SET: Final = ("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n", "+OK\r\n")


def _address(run: Cluster, pod: str) -> str:
    status = json.loads(run.daemon.crictl("inspectp", pod))["status"]
    return str(status["network"]["ip"])


def _ask(
    run: Cluster, addresses: list[str], port: int, dialog: tuple[str, str]
) -> list[list[float]]:
    command = [
        *run.daemon.inside(),
        sys.executable,
        "-c",
        _CLIENT,
        json.dumps([addresses, port, BATCHES, CALLS, *dialog]),
    ]
    found: list[list[float]] = json.loads(subprocess.check_output(command, timeout=500))
    return found


def _listens(run: Cluster, address: str, port: int) -> Callable[[], bool]:
    program = f"import socket; socket.create_connection(('{address}', {port}), 5)"
    command = [*run.daemon.inside(), sys.executable, "-c", program]
    return lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0


def measure(run: Cluster) -> Rows:
    """Rows of both programs."""
    allow_all = (ROOT / "policy_bundles/samples/allow_all.rego").read_bytes()
    policies = (run.policy(WEB, REDIS), allow_all)
    pods = [run.run_pod("parma", WEB, REDIS, policy=text) for text in policies]
    try:
        addresses = [_address(run, pod) for pod in pods]
        for address in addresses:
            for port in (80, 6379):
                wait_for(_listens(run, address, port), 60)
        rows = []
        for name, port, dialog in (("nginx.get", 80, _HTTP), ("redis.set", 6379, _SET)):
            strict, free = (scaled(x, 1e3) for x in _ask(run, addresses, port, dialog))
            rows.append(row(f"workload.{name}", "ms", strict, "allow-all policy", free))
        return rows
    finally:
        for pod in pods:
            run.remove_pod(pod)


def run() -> Rows:
    """Rows for `make bench`."""
    with cluster() as made:
        return measure(made)
