"""A dockerd of our own: kind needs one. It leaves the host's firewall and bridges as they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from .home import ClusterError, Home, run

PACKAGES = ("docker.io", "jq", "patchelf")
"""What the project's other parts do not need."""
_PROGRAMS = ("dockerd", "jq", "patchelf")
_RUNTIME = Path(__file__).with_name("runc-within-bounds")
_SHARE = 6 * 1024
_UNTOUCHED = (
    "--iptables=false",
    "--ip6tables=false",
    "--ip-masq=false",
    "--ip-forward=false",
    "--bridge=none",
)
"""By default dockerd sets the host's FORWARD chain to DROP, which breaks whatever else has network namespaces here."""


def install() -> None:
    """Docker and what builds the images, where something is missing; nothing is started. Raises ClusterError."""
    if all(map(shutil.which, _PROGRAMS)):
        return
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=environment)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    forbidding = Path("/usr/sbin/policy-rc.d")
    made = not forbidding.exists()
    if made:
        forbidding.write_text("#!/bin/sh\nexit 101\n")
        forbidding.chmod(0o755)
    try:
        run(command, env=environment, timeout=900)
    finally:
        if made:
            forbidding.unlink()


def environment(home: Home) -> dict[str, str]:
    """For docker, kind and kubectl."""
    return {
        "DOCKER_HOST": f"unix://{home.docker_socket}",
        "KUBECONFIG": str(home.kubeconfig),
        # Debian's client, which speaks the same version as the daemon, before any other.
        "PATH": "/usr/bin:" + os.environ.get("PATH", "/usr/sbin:/usr/bin"),
    }


def start(home: Home) -> None:
    """Starts dockerd unless it answers; it outlives this process. Raises ClusterError."""
    install()
    if _answers(home):
        return
    home.root.mkdir(parents=True, exist_ok=True)
    command = [
        *("dockerd", "--data-root", home.root / "docker", "--exec-root", home.root / "docker-run"),
        *("-H", f"unix://{home.docker_socket}", "--pidfile", _pidfile(home), *_UNTOUCHED),
        *("--add-runtime", f"bounded={_RUNTIME}", "--default-runtime", "bounded"),
    ]
    with (home.root / "dockerd.log").open("wb") as log:
        # Nobody's child: it goes on when this process ends.
        detached = ["setsid", "--fork", *(str(word) for word in command)]
        subprocess.run(detached, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    deadline = time.monotonic() + 60
    while not _answers(home):
        if time.monotonic() > deadline:
            raise ClusterError(f"dockerd did not come up: read {log.name}")
        time.sleep(0.2)


def take_a_share() -> None:
    """The whole cluster is one cgroup beside single processes: on a busy machine it would starve (version 1 only)."""
    with contextlib.suppress(FileNotFoundError):
        Path("/sys/fs/cgroup/cpu/docker/cpu.shares").write_text(f"{_SHARE}\n")


def stop(home: Home) -> None:
    """Ends our dockerd, by its pid, and waits for it."""
    try:
        pid = int(_pidfile(home).read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        time.sleep(0.1)


def _pidfile(home: Home) -> Path:
    return home.root / "dockerd.pid"


def _answers(home: Home) -> bool:
    try:
        run(["docker", "info"], env=environment(home), timeout=20)
    except ClusterError:
        return False
    return True
