"""Parma in the cluster, installed and taken away as an operator does it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .home import TREE, ClusterError, run
from .kind import NODE, Cluster

NAMESPACE = "parma-system"
DAEMONSET = "daemonset/parma-node"
INSTALL_LABEL = "io.parma/install"
READY_LABEL = "io.parma/ready"
IMAGE = "parma.example/node"
BASE = TREE / "shim/deploy/kustomize/base"
BUILDER = TREE / "shim/deploy/image/build.py"
TRACES = (
    "/opt/parma /usr/local/bin/containerd-shim-parma-v2 /var/lib/parma /run/parma "
    "/etc/containerd/config.toml.before-parma"
).split()
"""What an installation puts onto a node."""


def node_image() -> tuple[Path, str]:
    """The DaemonSet's image as an archive, built when something in it has changed, and its tag.

    PARMA_NODE_ARCHIVE names one that is built already, for whoever tests while the tree changes.
    """
    given = os.environ.get("PARMA_NODE_ARCHIVE")
    return _with_tag(Path(given or run([sys.executable, BUILDER], timeout=900).strip()))


def next_version() -> tuple[Path, str]:
    """The same under another version, as an upgrade would bring."""
    return _with_tag(Path(run([sys.executable, BUILDER, "--mark", "next"], timeout=900).strip()))


def _with_tag(archive: Path) -> tuple[Path, str]:
    return archive, archive.stem.removeprefix("node-")


def install(cluster: Cluster, archive: Path, tag: str) -> None:
    """As docs/install-kubernetes.md says: image, label, `kubectl apply -k`. Raises ClusterError."""
    cluster.load(archive)
    cluster.kubectl("label", "node", NODE, f"{INSTALL_LABEL}=true", "--overwrite")
    with overlay(tag) as folder:
        cluster.kubectl("apply", "-k", str(folder))
    wait_installed(cluster)


def wait_installed(cluster: Cluster) -> None:
    """Until the node says that it is ready. Raises ClusterError with the DaemonSet's log."""
    try:
        cluster.kubectl(
            "-n", NAMESPACE, "rollout", "status", DAEMONSET, "--timeout=120s", timeout=130
        )
    except ClusterError as error:
        log = cluster.kubectl("-n", NAMESPACE, "logs", DAEMONSET, "--tail=5")
        raise ClusterError(f"{error}\n{log}") from error


def uninstall(cluster: Cluster) -> None:
    """The nodes first, while the account that they work with exists. Raises ClusterError."""
    cluster.kubectl("-n", NAMESPACE, "delete", DAEMONSET, "--cascade=foreground", timeout=200)
    cluster.kubectl("delete", "-k", str(BASE), "--ignore-not-found", timeout=120)
    cluster.kubectl("label", "node", NODE, f"{INSTALL_LABEL}-")


@contextmanager
def overlay(tag: str) -> Iterator[Path]:
    """A kustomization that says which version."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(BASE, folder)],
            "images": [{"name": IMAGE, "newTag": tag}],
        }
        (folder / "kustomization.yaml").write_text(json.dumps(content))
        yield folder


def traces(cluster: Cluster) -> list[str]:
    """What of an installation is on the node: paths, the handler, the label. Empty when there is none."""
    script = 'for path; do [ ! -e "$path" ] && [ ! -L "$path" ] || echo "$path"; done'
    found = cluster.node("sh", "-c", script, "sh", *TRACES).split()
    if "runtimes.parma]" in cluster.node("cat", "/etc/containerd/config.toml"):
        found.append("handler")
    labels = json.loads(cluster.kubectl("get", "node", NODE, "-o", "json"))["metadata"]["labels"]
    return found + [name for name in labels if name.startswith("io.parma/")]
