"""Resident memory of the agent and its OPA inside a utility VM, read there by a program that an open policy allows."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Final

from parma_api.gen.parma.agent import v1
from parma_shim.attack.rig import CALL_SECONDS, Rig, boot
from parma_shim.config import load_config
from tests.bench.cluster import ROOT
from tests.bench.row import Row, Rows

_PYTHON: Final = "/usr/bin/python3.13"
_SCRIPT: Final = """
import json, os
def rss(pid):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmRSS"):
                return int(line.split()[1])
    return 0
found = {"agent": rss(1), "python": rss("self"), "opa": 0}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/comm") as file:
            if file.read().strip() == "opa":
                found["opa"] = max(found["opa"], rss(pid))
    except OSError:
        pass
print(json.dumps(found))
"""


async def _ask(rig: Rig) -> dict[str, int]:
    await rig.set_policy(rig.policy)
    number, stream = rig.open_stream()
    request = v1.ExecExternalRequest(
        exec_id="rss",
        args=[_PYTHON, "-I", "-S", "-c", _SCRIPT],
        working_dir="/",
        stdio=v1.Stdio(stdout=number),
    )
    await rig.agent.exec_external(request, timeout=CALL_SECONDS)
    text = b""
    while part := await stream.read():
        text += part
    found: dict[str, int] = json.loads(text)
    return found


async def _measure() -> dict[str, int]:
    policy = (ROOT / "policy_bundles/samples/allow_all.rego").read_bytes()
    async with boot(load_config(os.environ), dict(os.environ), policy) as rig:
        return await _ask(rig)


def run() -> Rows:
    """Rows for `make bench`."""
    found = asyncio.run(_measure())
    base = found["python"] / 1024
    return [_single(f"memory.guest.{name}", found[name] / 1024, base) for name in ("agent", "opa")]


def _single(name: str, value: float, base: float) -> Row:
    ratio = value / base
    return Row(name, value, "MiB", "empty Python there", base, 1, ratio, ratio, ratio)
