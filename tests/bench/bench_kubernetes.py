"""Pods of a real cluster against runc's in the same one: to Ready by phase, ten at once, memory, a probe by exec."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.bench.row import Row, Rows, in_turns, row
from tests.kubernetes.cluster import kind
from tests.kubernetes.cluster.home import run as run_command
from tests.kubernetes.conftest import MANIFESTS, Lab, laboratory, wait_for

ROUNDS: Final = 5
EXECS: Final = 20
CROWD: Final = 10
_MANY: Final = "parma-many"
_CLASS: Final = "runtimeClassName: parma"
_WATCHES: Final = {
    "pods": '{.metadata.name} {.status.conditions[?(@.status=="True")].type}{"\\n"}',
    "events": '{.involvedObject.name} {.reason}{"\\n"}',
}
"""What watchers are told, a line for each change: a pod's name, and what is true of it or has happened to it."""
_PHASES: Final = {
    "scheduled": "Scheduled",
    "sandbox": "Pulled",
    "create": "Created",
    "start": "Started",
    "ready": "Ready",
}
"""What was told at a phase's end. The image is there: it is looked at once the sandbox runs."""


def manifest(lab: Lab, name: str, runtime: str) -> str:
    """The plain pod under a name, by that runtime."""
    text = (MANIFESTS / "plain.yaml").read_text().replace("name: plain", f"name: {name}")
    if runtime == "runc":
        return text.replace(f"  {_CLASS}\n", "")
    return lab.annotated(text, "--allow-exec", "/bin/sh", "--allow-exec", "/bin/true")


def note(process: subprocess.Popen[str], name: str, seen: dict[str, float]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        about, *words = line.split()
        if about == name:
            for word in words:
                seen.setdefault(word, time.monotonic())


@contextmanager
def told(lab: Lab, name: str) -> Iterator[dict[str, float]]:
    """When each of a pod's conditions and events was first told to a watcher."""
    seen: dict[str, float] = {}
    environment = {**os.environ, **lab.cluster.environment}
    with ExitStack() as stack:
        for what, template in _WATCHES.items():
            words = ("get", what, "--watch", "-o", f"jsonpath={template}")
            process = stack.enter_context(
                subprocess.Popen(
                    lab.cluster.kubectl_command(*words),
                    env=environment,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            reader = threading.Thread(target=note, args=(process, name, seen))
            reader.start()
            stack.callback(reader.join)
            stack.callback(process.terminate)
        yield seen


def start(lab: Lab, name: str, text: str) -> dict[str, float]:
    """Seconds of each phase, and of all."""
    with told(lab, name) as seen:
        time.sleep(1)  # the watches are there
        began = time.monotonic()
        lab.apply(text)
        wait_for(lambda: seen.keys() >= set(_PHASES.values()), 120)
    found, last = {}, began
    for phase, word in _PHASES.items():
        found[phase], last = max(seen[word] - last, 0.0), max(seen[word], last)
    return {"all": last - began, **found}


def starts(lab: Lab) -> Rows:
    taken: dict[str, list[dict[str, float]]] = {"parma": [], "runc": []}
    for number in range(1 + ROUNDS):  # the first converts layers and is dropped
        for runtime, found in taken.items():
            name = f"timed-{runtime}-{number}"  # of its own: a watcher is told of old events too
            text = manifest(lab, name, runtime)
            times = start(lab, name, text)
            lab.delete(text)
            if number:
                found.append(times)
    ours, theirs = taken["parma"], taken["runc"]
    return [
        row(
            "kubernetes.start" + ("" if phase == "all" else f".{phase}"),
            "s",
            [times[phase] for times in ours],
            "runc",
            [max(times[phase], 0.001) for times in theirs],
        )
        for phase in ("all", *_PHASES)
    ]


def at_once(lab: Lab) -> Rows:
    found = {}
    lab.apply(
        json.dumps(
            {
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "handler": "parma",
                "metadata": {"name": _MANY},
            }
        )
    )
    for runtime in ("parma", "runc"):
        texts = [manifest(lab, f"crowd-{runtime}-{n}", runtime) for n in range(CROWD)]
        # Without overhead for processors: two of them would let four pods in.
        text = "---\n".join(texts).replace(_CLASS, f"runtimeClassName: {_MANY}")
        began = time.monotonic()
        lab.apply(text)
        lab.ready(*(f"crowd-{runtime}-{n}" for n in range(CROWD)), seconds=900)
        found[runtime] = time.monotonic() - began
        lab.delete(text, seconds=300)
    return [row(f"kubernetes.{CROWD}_at_once", "s", [found["parma"]], "runc", [found["runc"]])]


def resident(lab: Lab, pattern: str) -> list[float]:
    """MiB of each process whose command line has the pattern."""
    script = (
        f"for p in $(pgrep -f '[{pattern[0]}]{pattern[1:]}'); do grep VmRSS /proc/$p/status; done"
    )
    return [int(found) / 1024 for found in re.findall(r"\d+", lab.cluster.node("sh", "-c", script))]


def running(lab: Lab) -> Rows:
    """Of one pod of each kind that runs: memory and execs."""
    texts = {runtime: manifest(lab, f"still-{runtime}", runtime) for runtime in ("parma", "runc")}
    text = "---\n".join(texts.values())
    lab.apply(text)
    lab.ready(*(f"still-{runtime}" for runtime in texts))
    try:
        shim = resident(lab, "containerd-shim-parma-v2 -namespace")
        other = resident(lab, "containerd-shim-runc-v2 -namespace")
        machine = resident(lab, "qemu-system-x86_64 -name parma")
        words = lab.sh("still-parma", "cat /proc/meminfo")
        total, available = (
            int(number) / 1024 for number in re.findall(r"(?:MemTotal|MemAvailable): *(\d+)", words)
        )
        commands = {runtime: probe(lab, f"still-{runtime}") for runtime in texts}
        ours, theirs = in_turns(
            EXECS, lambda: inside(lab, commands["parma"]), lambda: inside(lab, commands["runc"])
        )
        return [
            row("kubernetes.memory.shim", "MiB", shim, "runc's shim", [statistics.median(other)]),
            row("kubernetes.memory.qemu", "MiB", machine, "the guest's memory", [total]),
            row(
                "kubernetes.memory.guest", "MiB", [total - available], "the guest's memory", [total]
            ),
            row("kubernetes.exec", "s", ours, "runc", theirs),
        ]
    finally:
        lab.delete(text)


def probe(lab: Lab, pod: str) -> str:
    """The container that an exec goes to."""
    identity = wait_for(lambda: lab.status(pod, "box").get("containerID", ""))
    return str(identity).removeprefix("containerd://")


def inside(lab: Lab, container: str) -> None:
    """What the kubelet does for a probe, by the same call."""
    crictl = lab.cluster.home.cache / "crictl/crictl"
    endpoint = f"unix://{lab.cluster.root()}/run/containerd/containerd.sock"
    run_command([crictl, "--runtime-endpoint", endpoint, "exec", "--sync", container, "/bin/true"])


def run() -> Rows:
    """Rows for `make bench`."""
    with tempfile.TemporaryDirectory() as folder:
        lab = laboratory(Path(folder))
        try:
            rows: list[Row] = [*starts(lab), *running(lab), *at_once(lab)]
            return rows
        finally:
            if not os.environ.get("KEEP"):
                kind.down(lab.cluster.home)
