"""How containers and pods begin, end and come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Lab, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def pods(lab: Lab, applied: Callable[..., None]) -> None:
    applied("lives.yaml", ("--allow-exec", "/bin/sh"))


def ended(lab: Lab, container: str) -> dict[str, Any]:
    """The last end of a container of the pod `ending`."""

    def state() -> dict[str, Any]:
        status = lab.status("ending", container)
        found: dict[str, Any] = (
            status["state"].get("terminated") or status.get("lastState", {}).get("terminated") or {}
        )
        return found

    return wait_for(state, 240)


def test_a_job_completes(lab: Lab) -> None:
    lab.cluster.kubectl(
        "wait", "--for=condition=Complete", "job/sum", "--timeout=240s", timeout=260
    )
    assert lab.cluster.kubectl("logs", "job/sum").strip() == "42"


def test_exit_code(lab: Lab) -> None:
    end = ended(lab, "told")
    assert (end["exitCode"], end["reason"]) == (0, "Completed")


def test_termination_message(lab: Lab) -> None:
    assert ended(lab, "told")["message"] == "goodbye"
    assert ended(lab, "fallback")["message"].strip() == "the last line of the log"


def test_each_life_has_a_message_of_its_own(lab: Lab) -> None:
    """The second life writes none."""

    def second() -> dict[str, Any] | None:
        status = lab.status("ending", "once")
        found: dict[str, Any] = status.get("lastState", {}).get("terminated") or {}
        return found if status.get("restartCount", 0) >= 2 else None

    first = ended(lab, "once")
    assert first["exitCode"] == 1
    last = wait_for(second, 120)
    assert last is not None
    assert "message" not in last


def test_a_port_that_nobody_listens_on_fails_its_probe(lab: Lab) -> None:
    wait_for(lambda: lab.status("ending", "deaf").get("restartCount", 0) >= 1, 120)
    assert "Liveness probe failed: dial tcp" in lab.events("ending")


def test_logs_after_the_end(lab: Lab) -> None:
    ended(lab, "told")
    assert lab.cluster.kubectl("logs", "ending", "-c", "told").strip() == "last words"


def test_out_of_memory(lab: Lab) -> None:
    end = ended(lab, "greedy")
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


def test_a_crashing_container_is_restarted_in_its_vm(lab: Lab) -> None:
    address = lab.object("pod", "ending")["status"]["podIP"]
    assert ended(lab, "crashing")["exitCode"] == 42
    wait_for(lambda: lab.status("ending", "crashing")["restartCount"] >= 2, 120)
    assert lab.object("pod", "ending")["status"]["podIP"] == address


def test_probes_and_hooks(lab: Lab) -> None:
    def status() -> dict[str, Any]:
        return lab.status("probed", "box")

    wait_for(lambda: status().get("started"), 240)
    assert not status()["ready"]
    lab.sh("probed", "ls /kept/started; touch /tmp/ready")
    wait_for(lambda: status()["ready"], 30)
    lab.sh("probed", "rm /tmp/alive")
    wait_for(lambda: status()["restartCount"] == 1, 60)
    end = wait_for(lambda: status().get("lastState", {}).get("terminated"), 30)
    assert (end["exitCode"], end["message"]) == (0, "ended\n")
    assert "stopping" in lab.sh("probed", "ls /kept")
    assert lab.cluster.kubectl("logs", "probed", "--previous") == "begun\n"
