"""Ephemeral containers: those that the policy has run; others are refused, and the pod lives on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import MANIFESTS, Lab, changed, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]
POD = "watched"
LENS = ("/bin/sh", "-c", "ps -o args; exec sleep 100001")


def without_ephemeral(spec: dict[str, Any]) -> None:
    """The API takes them by a call of their own only."""
    del spec["ephemeralContainers"]


@pytest.fixture(scope="module", autouse=True)
def pod(lab: Lab) -> Iterator[None]:
    text = lab.annotated((MANIFESTS / "watched.yaml").read_text(), "--allow-exec", "box=/bin/sh")
    text = changed(text, without_ephemeral)
    lab.delete(text)
    lab.apply(text)
    lab.ready(POD)
    yield
    lab.delete(text)


def debug(lab: Lab, name: str, *command: str) -> None:
    lab.cluster.kubectl(
        "debug", f"pod/{POD}", "--image=parma.example/busybox:1", f"--container={name}",
        "--image-pull-policy=Never", "--profile=baseline", "--quiet", "--", *command,
    )  # fmt: skip


def test_one_that_the_policy_has(lab: Lab) -> None:
    debug(lab, "lens", *LENS)
    wait_for(lambda: lab.status(POD, "lens")["state"].get("running"), 60)
    assert "sleep 100000" in wait_for(lambda: lab.cluster.kubectl("logs", POD, "-c", "lens"), 20)


def test_one_that_it_has_not(lab: Lab) -> None:
    debug(lab, "thief", "/bin/sh", "-c", "cat /proc/1/environ")
    assert wait_for(lambda: "process.command" in lab.events(POD), 60)
    assert "denied by policy" in lab.events(POD)
    state = wait_for(lambda: lab.status(POD, "thief")["state"], 20)
    assert "running" not in state
    assert lab.sh(POD, "echo alive").strip() == "alive"
