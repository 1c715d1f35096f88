"""`make soak`: a hundred restarts, a hundred pods one after the other, a token's renewal, and nothing grows or stays.

    python -m tests.kubernetes.soak [--restarts N] [--pods N] [--no-token] [--json FILE]

The kubelet's back-off is lowered to two seconds (`cluster/kind.py`). Exit status 1 if something is left over, a figure
has grown, or a pod did not come up.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .cluster import kind
from .conftest import MANIFESTS, Lab, laboratory, wait_for
from .leftovers import listing, settles

RESTARTS, PODS = 100, 100
TOKEN_SECONDS = 660
"""A token of ten minutes is renewed after eight; one sync of the kubelet and one look of the shim more."""
GROWTH_MIB = 8.0
"""What resident memory of a shim may vary by."""
_MEASURE = r"""
for pid in $(pgrep -f 'containerd-shim-parma-v[2] -namespace'); do
  echo $(ls /proc/$pid/fd | wc -l) $(grep VmRSS /proc/$pid/status | tr -dc 0-9)
done
"""


@dataclass(slots=True)
class Result:
    """What was seen, for the note; and what is wrong."""

    figures: dict[str, object] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def tell(self, name: str, value: object) -> None:
        self.figures[name] = value
        print(f"soak: {name}: {value}", flush=True)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part that fails does not end the others."""
        began = time.monotonic()
        try:
            yield
        except AssertionError as error:
            self.wrong.append(f"{name}: {error}")
            print(f"soak: {name} FAILED: {error}", flush=True)
        self.tell(f"{name}, seconds", round(time.monotonic() - began))


def shims(lab: Lab) -> list[tuple[int, float]]:
    """Descriptors and resident MiB of each shim, the largest first."""
    rows = lab.cluster.node("sh", "-c", _MEASURE).split("\n")
    found = [(int(row.split()[0]), int(row.split()[1]) / 1024) for row in rows if row.strip()]
    return sorted(found, reverse=True)


def restarts(lab: Lab, result: Result, number: int) -> None:
    """One container that ends at once, again and again in one VM, beside another one that lives."""
    text = lab.annotated((MANIFESTS / "crash.yaml").read_text())
    lab.apply(text)
    try:
        reach(lab, min(10, number // 2))
        early = shims(lab)[0]
        reach(lab, number)
        late = shims(lab)[0]
        result.tell("descriptors of the shim, early and late", [early[0], late[0]])
        result.tell("resident MiB of the shim, early and late", [early[1], late[1]])
        assert late[0] <= early[0] + 8, "the shim's descriptors grow with the restarts"
        assert late[1] <= early[1] + GROWTH_MIB, "the shim's memory grows with the restarts"
        assert lab.status("crash", "steady")["restartCount"] == 0
    finally:
        lab.delete(text)


def reach(lab: Lab, number: int) -> None:
    wait_for(lambda: lab.status("crash", "crashing").get("restartCount", 0) >= number, number * 60)


def one_after_the_other(lab: Lab, result: Result, number: int) -> None:
    text = lab.annotated((MANIFESTS / "plain.yaml").read_text())
    ready, gone = [], []
    for count in range(number):
        began = time.monotonic()
        lab.apply(text)
        lab.ready("plain", seconds=300)
        ready.append(time.monotonic() - began)
        began = time.monotonic()
        lab.delete(text, seconds=120)
        gone.append(time.monotonic() - began)
        if count % 10 == 9:
            print(f"soak: {count + 1} pods", flush=True)
    for name, seconds in (("Ready after", ready), ("gone after", gone)):
        rounded = [round(value, 1) for value in (statistics.median(seconds), max(seconds))]
        result.tell(f"{number} pods, {name}, median and longest, seconds", rounded)


@contextmanager
def token_pod(lab: Lab, result: Result, *, wanted: bool) -> Iterator[None]:
    """A pod with a token of ten minutes, and a probe by exec every second, beside the other parts."""
    if not wanted:
        yield
        return
    text = lab.annotated((MANIFESTS / "token.yaml").read_text(), "--allow-exec", "box=/bin/sh")
    lab.apply(text)
    lab.ready("token")
    began, first, early = time.monotonic(), read_token(lab), shims(lab)[0]
    yield
    with result.part("a token's renewal"):
        left = max(30.0, TOKEN_SECONDS - (time.monotonic() - began))
        wait_for(lambda: read_token(lab) != first, left)
        assert authenticated(lab, read_token(lab)), "the renewed token is not accepted"
        late = shims(lab)[0]
        probes = round(time.monotonic() - began)
        result.tell("seconds of a probe by exec each", probes)
        result.tell("shim with probes: descriptors, MiB, early and late", [early, late])
        assert late[0] <= early[0] + 8, "the shim's descriptors grow with the probes"
        assert late[1] <= early[1] + GROWTH_MIB, "the shim's memory grows with the probes"
        assert lab.status("token", "box")["restartCount"] == 0
    lab.delete(text)


def read_token(lab: Lab) -> str:
    return lab.sh("token", "cat /token/token")


def authenticated(lab: Lab, token: str) -> bool:
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["soak"]},
    }
    command = ("create", "-f", "-", "-o", "json")
    answer = lab.cluster.kubectl(*command, stdin=json.dumps(review))
    return bool(json.loads(answer)["status"].get("authenticated"))


def play(lab: Lab, result: Result, arguments: argparse.Namespace) -> None:
    before = listing(lab)
    with token_pod(lab, result, wanted=arguments.token):
        with result.part(f"{arguments.restarts} restarts"):
            restarts(lab, result, arguments.restarts)
        with result.part(f"{arguments.pods} pods one after the other"):
            one_after_the_other(lab, result, arguments.pods)
    with result.part("nothing left over"):
        settles(lab, before)
        result.tell("listing", listing(lab))
    logs = lab.cluster.node(
        "journalctl", "-u", "containerd", "--no-pager", "-o", "cat", timeout=120
    )
    retried = len(re.findall(r"boot 1 of \d failed", logs))
    result.tell("boots that were tried twice", retried)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.soak", description=__doc__)
    parser.add_argument("--restarts", type=int, default=RESTARTS)
    parser.add_argument("--pods", type=int, default=PODS)
    parser.add_argument("--no-token", dest="token", action="store_false")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    result = Result()
    with tempfile.TemporaryDirectory() as folder:
        lab = laboratory(Path(folder))
        try:
            play(lab, result, arguments)
        finally:
            if not os.environ.get("KEEP"):
                kind.down(lab.cluster.home)
    if arguments.json is not None:
        document = {"figures": result.figures, "wrong": result.wrong}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"soak: {'; '.join(result.wrong) or 'all as it should be'}")
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
