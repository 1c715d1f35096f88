"""Installed, upgraded under running pods, taken away; by kustomize and by helm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .cluster import installation
from .cluster.home import TREE, run
from .cluster.kind import NODE
from .cluster.programs import HELM, ensure
from .conftest import MANIFESTS, Lab, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]
CHART = TREE / "shim/deploy/helm/parma"
VERSIONS = "/opt/parma/versions"
NAMESPACE = installation.NAMESPACE


@pytest.fixture(autouse=True)
def installed_again(lab: Lab) -> Iterator[None]:
    """The tests that follow find what they expect."""
    yield
    installation.install(lab.cluster, *installation.node_image())


def started(lab: Lab) -> str:
    """When containerd started."""
    return lab.cluster.node(
        "systemctl", "show", "-p", "ExecMainStartTimestampMonotonic", "containerd"
    )


def helm(lab: Lab, *words: str) -> str:
    command: list[str | Path] = [ensure(lab.cluster.home, HELM), *words]
    return run(command, env=lab.cluster.environment, timeout=400)


def test_a_restarted_daemonset_does_not_restart_containerd(lab: Lab) -> None:
    before = started(lab)
    lab.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", installation.DAEMONSET)
    installation.wait_installed(lab.cluster)
    assert started(lab) == before


def test_nothing_is_left_after_removal(lab: Lab) -> None:
    assert installation.traces(lab.cluster)
    installation.uninstall(lab.cluster)
    assert installation.traces(lab.cluster) == []
    assert lab.cluster.kubectl("get", "runtimeclass", "-o", "name") == ""


def test_a_node_without_the_label_loses_it(lab: Lab) -> None:
    lab.cluster.kubectl("label", "node", NODE, f"{installation.INSTALL_LABEL}-")
    wait_for(lambda: installation.traces(lab.cluster) == [], 60)


def test_pods_outlive_an_upgrade(lab: Lab) -> None:
    plain = (MANIFESTS / "plain.yaml").read_text()
    text = lab.annotated(plain, "--allow-exec", "/bin/sh")
    later = lab.annotated(plain.replace("name: plain", "name: later"))
    lab.apply(text)
    try:
        lab.ready("plain")
        (old,) = lab.cluster.node("ls", VERSIONS).split()
        before = started(lab)
        archive, new = installation.next_version()
        installation.install(lab.cluster, archive, new)
        assert started(lab) == before  # the handler is the same
        assert sorted(lab.cluster.node("ls", VERSIONS).split()) == sorted([old, new])
        assert lab.sh("plain", "echo alive").strip() == "alive"
        lab.apply(later)
        lab.ready("later")
        assert commands(lab, old) == commands(lab, new) == 2  # shim and QEMU
        assert lab.sh("plain", "echo alive").strip() == "alive"
    finally:
        lab.delete(text)
    wait_for(lambda: lab.cluster.node("ls", VERSIONS).split() == [new], 150)
    lab.delete(later)


def commands(lab: Lab, version: str) -> int:
    """Processes of pods that run by a version."""
    pattern = f"{VERSIONS}/{version}/.*(parma-v2 -namespace|qemu-system-x86_64 -name)"
    return int(lab.cluster.node("pgrep", "-fc", pattern))


def test_helm_installs_and_removes(lab: Lab) -> None:
    archive, tag = installation.node_image()
    installation.uninstall(lab.cluster)
    lab.cluster.load(archive)
    lab.cluster.kubectl("label", "node", NODE, f"{installation.INSTALL_LABEL}=true", "--overwrite")
    options = ("--namespace", NAMESPACE, "--wait", "--timeout", "3m")
    helm(
        lab,
        "install",
        "parma",
        str(CHART),
        *options,
        "--create-namespace",
        "--set",
        f"image.tag={tag}",
    )
    try:
        # helm's --wait is content with one node less than there are (maxUnavailable).
        installation.wait_installed(lab.cluster)
        assert "handler" in installation.traces(lab.cluster)
    finally:
        helm(lab, "uninstall", "parma", *options)
    assert installation.traces(lab.cluster) == [installation.INSTALL_LABEL]
    assert "parma" not in lab.cluster.kubectl(
        "get", "clusterrole,clusterrolebinding,runtimeclass", "-o", "name"
    )


def test_chart_and_kustomization_are_the_same(lab: Lab) -> None:
    _, tag = installation.node_image()
    rendered = helm(
        lab, "template", "parma", str(CHART), "--namespace", NAMESPACE, "--set", f"image.tag={tag}"
    )
    with installation.overlay(tag) as folder:
        built = lab.cluster.kubectl("kustomize", str(folder))
    charted, kustomized = described(rendered), described(built)
    del charted["Job/parma-retire"]
    del kustomized[f"Namespace/{NAMESPACE}"]
    # What the chart has more: the two settings of containerd, and the right that its hook needs.
    container = charted["DaemonSet/parma-node"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [
        row for row in container["env"] if not row["name"].startswith("PARMA_CONTAINERD")
    ]
    charted["Role/parma-node"]["rules"][0]["verbs"].remove("delete")
    assert json.dumps(charted, sort_keys=True) == json.dumps(kustomized, sort_keys=True)


def described(text: str) -> dict[str, dict]:  # type: ignore[type-arg]
    documents = [document for document in yaml.safe_load_all(text) if document]
    return {
        f"{document['kind']}/{document['metadata']['name']}": document for document in documents
    }
