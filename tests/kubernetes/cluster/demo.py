"""`make kind`: a cluster, Parma installed, a Deployment under its policy, a tampered one refused, all removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from parma_shim.demo import images
from parma_shim.demo.narrator import Narrator

from . import installation, kind
from .home import ClusterError, Home, run
from .kind import NODE, Cluster
from .programs import command_folder

MANIFEST = Path(__file__).parents[1] / "demo" / "web.yaml"
PAGE = "from inside a utility VM"
STOLEN = ["/bin/sh", "-c", "cat /var/run/secrets/kubernetes.io/serviceaccount/token"]


def play(narrator: Narrator, home: Home, *, keep: bool) -> None:
    """The whole story. Raises ClusterError, with the cluster removed unless it shall be kept."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with narrator.step("a Kubernetes cluster of one node (kind), its parts built once"):
            cluster = kind.up(home)
            narrator.say(cluster.kubectl("get", "nodes", "-o", "wide", "--no-headers"))
        with tempfile.TemporaryDirectory() as folder:
            _play_in(narrator, cluster, Path(folder), keep=keep)
        if keep:
            _say_how_to_use(narrator, home)
    finally:
        if not keep:
            kind.down(home)


def _play_in(narrator: Narrator, cluster: Cluster, folder: Path, *, keep: bool) -> None:
    annotated = folder / "web.yaml"
    with narrator.step("the operator installs Parma: node label, kubectl apply -k"):
        installation.install(cluster, *installation.node_image())
        narrator.say(cluster.kubectl("-n", installation.NAMESPACE, "logs", installation.DAEMONSET))
    with narrator.step(
        "the tenant writes the policy: parma policy generate web.yaml --annotate-to"
    ):
        archive = images.ensure(cluster.home.cache / "demo", narrator.say)
        narrator.say(generate(archive, annotated))
        cluster.load(archive)
    with narrator.step("kubectl apply: the Deployment runs in a utility VM"):
        cluster.kubectl("apply", "-f", str(annotated))
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=180s", timeout=190)
        narrator.say(cluster.kubectl("get", "pods", "-o", "wide", "--no-headers"))
        narrator.say(_virtual_machine(cluster))
    with narrator.step("it is called: through its Service, and by port-forward"):
        narrator.say(f"service      {_expected(_through_service(cluster))}")
        with port_forward(cluster, "service/web", 80) as port:
            narrator.say(f"port-forward {_expected(_fetch(port, '/page/'))}")
    with narrator.step(
        "somebody with rights in the cluster changes the command, and keeps the policy"
    ):
        cluster.kubectl("apply", "-f", "-", stdin=tampered(annotated.read_text()))
        narrator.refused(f"command: {json.dumps(STOLEN)}", _denial(cluster))
    if not keep:
        with narrator.step("everything is removed: the workloads, then Parma"):
            cluster.kubectl("delete", "deployment/tampered", "--wait=true")
            cluster.kubectl("delete", "-f", str(annotated))
            cluster.kubectl("wait", "--for=delete", "pod", "--all", "--timeout=60s")
            installation.uninstall(cluster)
            left = installation.traces(cluster)
            if left:
                raise ClusterError(f"left on the node: {', '.join(left)}")
            narrator.say("nothing of Parma is left on the node")


def generate(archive: Path, annotated: Path) -> str:
    """Writes the manifest with its policy; HOST_DATA and the notes. Raises ClusterError."""
    command = [
        Path(sys.executable).with_name("parma"),
        "policy",
        "generate",
        MANIFEST,
        "--archive",
        archive,
    ]
    command += ["--offline", "--allow-port-forward", "80", "--annotate-to", annotated, "--output"]
    done = subprocess.run(
        [str(word) for word in (*command, annotated.with_suffix(".rego"))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(done.stderr.strip())
    return "\n".join(
        line for line in done.stderr.splitlines() if line.startswith(("HOST_DATA", "note"))
    )


def tampered(manifest: str) -> str:
    """The Deployment under another name, with another command and the same policy."""
    deployment = next(item for item in yaml.safe_load_all(manifest) if item["kind"] == "Deployment")
    deployment["metadata"]["name"] = "tampered"
    deployment["spec"]["selector"]["matchLabels"] = {"app": "tampered"}
    template = deployment["spec"]["template"]
    template["metadata"]["labels"] = {"app": "tampered"}
    template["spec"]["containers"][0]["command"] = STOLEN
    return json.dumps(deployment)


def _denial(cluster: Cluster) -> str:
    """The line of `kubectl describe pod` that says so."""

    def described() -> str:
        text = cluster.kubectl("describe", "pod", "-l", "app=tampered")
        return next((line.strip() for line in text.splitlines() if "denied by policy" in line), "")

    return wait_for(described, 120, "an event that says `denied by policy`")


def _through_service(cluster: Cluster) -> str:
    """kube-proxy writes its rules a moment after the pod is ready."""
    address = cluster.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")

    def page() -> str:
        try:
            return cluster.node("curl", "-sm", "10", f"http://{address}/page/")
        except ClusterError:
            return ""

    return wait_for(page, 20, "answer of the Service")


@contextmanager
def port_forward(cluster: Cluster, target: str, port: int) -> Iterator[int]:
    """`kubectl port-forward`, with the local port that it chose."""
    command = cluster.kubectl_command("port-forward", target, f":{port}", "--address", "127.0.0.1")
    environment = {**os.environ, **cluster.environment}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()  # Forwarding from 127.0.0.1:41111 -> 80
            if "Forwarding from" not in line:
                raise ClusterError(f"port-forward of {target} did not start: {line.strip()}")
            yield int(line.split(" -> ")[0].rpartition(":")[2])
        finally:
            process.terminate()


def _fetch(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=15) as answer:
            return str(answer.read().decode())
    except OSError as error:
        raise ClusterError(f"port {port}: {error}") from error


def _expected(page: str) -> str:
    if PAGE not in page:
        raise ClusterError(f"not the page of the ConfigMap: {page[:200]!r}")
    return page.strip()


def _virtual_machine(cluster: Cluster) -> str:
    found = run(
        ["docker", "exec", NODE, "ps", "-C", "qemu-system-x86", "-o", "pid=,rss=,comm="],
        env=cluster.environment,
    )
    pid, rss, name = found.split()[:3]
    return f"{name}, pid {pid} of the node, {int(rss) >> 10} MiB resident"


def wait_for(check: Callable[[], str], seconds: float, what: str) -> str:
    """The first answer that is not empty. Raises ClusterError."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        if time.monotonic() > deadline:
            raise ClusterError(f"there was no {what} in {seconds:.0f} s")
        time.sleep(0.5)
    return found


def _say_how_to_use(narrator: Narrator, home: Home) -> None:
    narrator.end("the cluster runs on")
    narrator.say(f"export KUBECONFIG={home.kubeconfig} DOCKER_HOST=unix://{home.docker_socket}")
    narrator.say(f"kubectl is {command_folder(home) / 'kubectl'}")
    narrator.say("remove it: .venv/bin/python -m tests.kubernetes.cluster down")
