"""`crictl port-forward`: the port that the policy lists, and one that it does not."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from parma_shim.demo.daemon import PrivateContainerd, run_checked

from .conftest import Pod
from .members import DENIED_PORT, FORWARDED_PORT, SERVER
from .observe import wait_for

pytestmark = [pytest.mark.vm, pytest.mark.containerd, pytest.mark.timeout(180)]
FETCH = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20) as peer:
    print(peer.makefile().read())
"""


@pytest.fixture(scope="module")
def server(daemon: PrivateContainerd, shared_pod: Pod) -> Iterator[str]:
    made = shared_pod.run(SERVER)
    yield made
    daemon.crictl("rm", "--force", made)


@contextlib.contextmanager
def forwarded(daemon: PrivateContainerd, pod: Pod, port: int) -> Iterator[int]:
    """The local port."""
    local = port + 10000
    command = [*daemon.crictl_command(), "port-forward", pod.id, f"{local}:{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "Forwarding from" in process.stdout.readline()
        try:
            yield local
        finally:
            process.kill()


def fetch(daemon: PrivateContainerd, port: int) -> str:
    return run_checked([*daemon.inside(), sys.executable, "-c", FETCH, str(port)])


def test_a_listed_port(daemon: PrivateContainerd, shared_pod: Pod, server: str) -> None:
    del server
    with forwarded(daemon, shared_pod, FORWARDED_PORT) as port:
        assert wait_for(lambda: fetch(daemon, port).strip()) == "hello from the guest"


def test_another_port(daemon: PrivateContainerd, shared_pod: Pod, server: str) -> None:
    del server
    with forwarded(daemon, shared_pod, DENIED_PORT) as port:
        assert fetch(daemon, port).strip() == ""
        assert wait_for(
            lambda: "port-forward: port_forward denied by policy" in daemon.log.read_text()
        )
