"""The cluster: up, down, and images loaded into it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from . import docker, nodeimage
from .home import ClusterError, Home, run, step
from .programs import HELM, KIND, command_folder, ensure

NAME = "parma"
NODE = f"{NAME}-control-plane"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster."""

    home: Home
    kind: Path
    kubectl_program: Path

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Runs kubectl; its standard output. Raises ClusterError."""
        data = stdin.encode() if stdin is not None else None
        return run(self.kubectl_command(*words), env=self.environment, stdin=data, timeout=timeout)

    def kubectl_command(self, *words: str) -> list[str]:
        """The words of a kubectl command, for whoever wants its streams."""
        return [str(self.kubectl_program), "--kubeconfig", str(self.home.kubeconfig), *words]

    @property
    def environment(self) -> dict[str, str]:
        """For commands about this cluster."""
        return docker.environment(self.home)

    def node(self, *words: str, timeout: float = 60) -> str:
        """Runs a command in the node; its standard output. Raises ClusterError."""
        return run(["docker", "exec", NODE, *words], env=self.environment, timeout=timeout)

    def root(self) -> Path:
        """The node's file system, from outside. Raises ClusterError."""
        command = ["docker", "inspect", "--format", "{{.State.Pid}}", NODE]
        return Path(f"/proc/{run(command, env=self.environment).strip()}/root")

    def load(self, archive: Path) -> None:
        """Gives the node's containerd the images of an archive. Raises ClusterError."""
        run(
            [self.kind, "load", "image-archive", archive, "--name", NAME],
            env=self.environment,
            timeout=600,
        )


def _described(image: str) -> str:
    """kind's configuration (JSON is YAML)."""
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # A changed ConfigMap reaches its volume within this and a little more; the default is a minute.
        "syncFrequency": "10s",
        # Logs are rotated often enough to be seen; the default is 10 MiB.
        "containerLogMaxSize": "256Ki",
        "containerLogMonitorInterval": "3s",
        # A container that crashes is restarted after this at most, in place of five minutes.
        "featureGates": {"KubeletCrashLoopBackOffMax": True},
        "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
    }
    return json.dumps(
        {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"disableDefaultCNI": True},
            "nodes": [{"role": "control-plane", "image": image}],
            "kubeadmConfigPatches": [json.dumps(kubelet)],
        }
    )


def build(home: Home) -> None:
    """Everything that a cluster and its tests are made of, as far as it is missing. Raises ClusterError."""
    docker.start(home)
    for program in (KIND, HELM):
        ensure(home, program)
    nodeimage.ensure_image(home)


def up(home: Home) -> Cluster:
    """The cluster, ready; the one that runs already, or a new one. Raises ClusterError."""
    docker.start(home)
    cluster = Cluster(home, ensure(home, KIND), command_folder(home) / "kubectl")
    image = nodeimage.ensure_image(home)
    if NAME in run([cluster.kind, "get", "clusters"], env=cluster.environment).split():
        if _runs(cluster, image):
            return cluster
        down(home)
        docker.start(home)
    with step("kind create cluster"):
        command: list[str | Path] = [
            cluster.kind,
            "create",
            "cluster",
            "--name",
            NAME,
            "--config",
            "-",
            "--wait",
            "180s",
        ]
        run(command, env=cluster.environment, stdin=_described(image).encode(), timeout=600)
        docker.take_a_share()
        _wait_for_account(cluster)
    return cluster


def down(home: Home) -> None:
    """Deletes the cluster and ends dockerd. Raises ClusterError."""
    docker.start(home)
    environment = docker.environment(home)
    run([ensure(home, KIND), "delete", "cluster", "--name", NAME], env=environment, timeout=300)
    docker.stop(home)


def _runs(cluster: Cluster, image: str) -> bool:
    """Is it of this image, and does it answer?"""
    try:
        used = run(
            ["docker", "inspect", "--format", "{{.Config.Image}}", NODE], env=cluster.environment
        )
        cluster.kubectl("get", "--raw", "/readyz", timeout=20)
    except ClusterError:
        return False
    return used.strip() == image


def _wait_for_account(cluster: Cluster) -> None:
    """A node is Ready before the account exists that pods run as."""
    deadline = time.monotonic() + 60
    while True:
        try:
            cluster.kubectl("get", "serviceaccount", "default", timeout=20)
        except ClusterError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return
