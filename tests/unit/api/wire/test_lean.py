"""The agent's cheap import of betterproto."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

from parma_api.wire import lean

AGENT = """
import sys
from parma_api.wire.lean import prepare
prepare()
import betterproto
import parma_api.channel.mux
import parma_api.ttrpc.server
from parma_api.gen.containerd.task.v2 import WaitResponse
from parma_api.gen.parma.agent.v1 import HealthResponse
from parma_api.wire.strict import decode
assert decode(HealthResponse, bytes(HealthResponse(version="1"))).version == "1"
assert decode(WaitResponse, bytes(WaitResponse(exit_status=3))).exit_status == 3
prepare()
print(betterproto.__version__, *sorted(sys.modules))
"""


def test_what_the_agent_imports() -> None:
    done = subprocess.run([sys.executable, "-c", AGENT], capture_output=True, text=True, check=True)
    version, *loaded = done.stdout.split()
    assert version == metadata.version("betterproto")
    unwanted = {
        "importlib.metadata",
        "zipfile",
        "email",
        "dateutil.tz",
        "h2",
        "multidict",
        "aiohttp",
    }
    assert not unwanted & set(loaded)


def test_it_changes_nothing_once_betterproto_is_there() -> None:
    before = dict(sys.modules)
    lean.prepare()
    assert sys.modules == before
