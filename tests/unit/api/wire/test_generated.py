"""The generated code: fresh, light to import, and the two task services equal."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import betterproto

from parma_api.gen.containerd.task import v2, v3
from parma_api.proto import generate
from parma_api.ttrpc.service import method_table


def test_committed_output_is_fresh() -> None:
    assert generate.main(["--check"]) == 0


def test_the_agents_imports_bring_no_http() -> None:
    """More than a second in an emulated guest, before its first answer."""
    code = "import sys, parma_api.gen.parma.agent.v1; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "parma_api.gen.parma.agent.v1" in loaded
    assert not loaded & {
        "h2",
        "hpack",
        "multidict",
        "grpclib.server",
        "grpclib.client",
        "grpclib.protocol",
    }


def _fields(cls: type[betterproto.Message]) -> list[tuple[str, object, object]]:
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    return [(field.name, field.type, field.metadata["betterproto"]) for field in fields]


def test_task_v2_and_v3_differ_in_name_only() -> None:
    tables = method_table([v2.TaskBase()]), method_table([v3.TaskBase()])
    old, new = tables[0]["containerd.task.v2.Task"], tables[1]["containerd.task.v3.Task"]
    assert list(old) == list(new)
    assert len(old) == 17
    for name, method in old.items():
        for side in ("request_type", "response_type"):
            pair = getattr(method.info, side), getattr(new[name].info, side)
            assert pair[0].__name__ == pair[1].__name__
            assert _fields(pair[0]) == _fields(pair[1])
