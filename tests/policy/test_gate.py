"""The gate over a real OPA: transactions, queues, and an evaluator that dies, hangs or lies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from parma_api.policy.decision import DecisionRecord, PointRequest, PolicyDenied, PolicyInvalid
from parma_api.policy.gate import DEVICES, Gate, Stance
from parma_api.policy.opa import OpaEngine, OpaLoader
from parma_api.policy.points import Point
from parma_api.policy.sidecar import Sidecar
from parma_api.status import DeadlineExceededError

SetPolicy = Callable[[bytes | str], Awaitable[None]]
Soon = Callable[..., float]


def _load_group() -> Any:
    spec = importlib.util.spec_from_file_location(
        "policy_group", Path(__file__).with_name("group.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GROUP = _load_group()
ONE = GROUP.container_id(0)


async def carry_out(gate: Gate, queue: str, *requests: PointRequest, deadline: float) -> None:
    async with gate.transaction(queue, requests, deadline):
        pass


async def assembled(gate: Gate, soon: Soon, index: int = 0) -> None:
    for request in (
        GROUP.mount_device(index, 0),
        GROUP.mount_device(index, 1),
        GROUP.mount_overlay(index),
    ):
        await carry_out(gate, DEVICES, request, deadline=soon())


async def started(gate: Gate, soon: Soon, index: int = 0) -> None:
    await assembled(gate, soon, index)
    await carry_out(gate, GROUP.container_id(index), GROUP.create(index), deadline=soon())


def sidecar_of(gate: Gate) -> Sidecar:
    assert isinstance(gate._engine, OpaEngine)
    return gate._engine.sidecar


async def test_whole_life_of_two_containers(gate: Gate, set_policy: SetPolicy, soon: Soon) -> None:
    await set_policy(GROUP.policy(2))
    for index in (0, 1):
        await started(gate, soon, index)
        await carry_out(gate, GROUP.container_id(index), GROUP.execute(index), deadline=soon())
        await carry_out(gate, GROUP.container_id(index), GROUP.signal(index), deadline=soon())
        await carry_out(gate, GROUP.container_id(index), GROUP.shutdown(index), deadline=soon())
    assert gate.metadata().mapping("matches") == {}
    assert set(gate.metadata().mapping("started")) == {GROUP.container_id(0), GROUP.container_id(1)}
    assert len(gate._queues) == 0


async def test_body_that_fails_books_nothing(gate: Gate, set_policy: SetPolicy, soon: Soon) -> None:
    await set_policy(GROUP.policy(1))
    before = gate.metadata()
    with pytest.raises(OSError, match="no such device"):
        async with gate.transaction(DEVICES, [GROUP.mount_device(0, 0)], soon()):
            raise OSError("no such device")
    assert gate.metadata() is before


async def test_later_request_sees_what_an_earlier_one_stages(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(GROUP.policy(1))
    layers = [GROUP.mount_device(0, 0), GROUP.mount_device(0, 1), GROUP.mount_overlay(0)]
    async with gate.transaction(DEVICES, layers, soon()) as decisions:
        assert [d.point for d in decisions] == ["mount_device", "mount_device", "mount_overlay"]
        assert gate.metadata().mapping("devices") == {}
    assert len(gate.metadata().mapping("devices")) == 2


async def test_one_denial_denies_the_whole_transaction(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(GROUP.policy(1))
    with pytest.raises(PolicyDenied) as denied:
        await carry_out(
            gate, DEVICES, GROUP.mount_device(0, 0), GROUP.mount_device(0, 0), deadline=soon()
        )
    assert denied.value.reason_codes == ("device.target_in_use",)
    assert gate.metadata().mapping("devices") == {}
    await carry_out(gate, DEVICES, GROUP.mount_device(0, 0), deadline=soon())


async def test_deadline_ends_the_action(gate: Gate, set_policy: SetPolicy, soon: Soon) -> None:
    await set_policy(GROUP.policy(1))
    with pytest.raises(DeadlineExceededError):
        async with gate.transaction(DEVICES, [GROUP.mount_device(0, 0)], soon(0.2)):
            await asyncio.Event().wait()
    assert gate.metadata().mapping("devices") == {}


async def test_signal_waits_for_no_other_container_and_briefly_for_its_own(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(GROUP.policy(2))
    await started(gate, soon, 0)
    hung, release = asyncio.Event(), asyncio.Event()

    async def hang(queue: str, request: PointRequest, seconds: float) -> None:
        with contextlib.suppress(DeadlineExceededError):
            async with gate.transaction(queue, [request], soon(seconds)):
                hung.set()
                await release.wait()

    elsewhere = asyncio.create_task(hang(DEVICES, GROUP.mount_device(1, 0), 30))
    await hung.wait()
    await carry_out(gate, ONE, GROUP.signal(0), deadline=soon(5))
    release.set()
    await elsewhere
    hung.clear()
    release.clear()
    own = asyncio.create_task(hang(ONE, GROUP.execute(0), 0.3))
    await hung.wait()
    await carry_out(gate, ONE, GROUP.signal(0), deadline=soon(5))
    await own


async def test_requests_of_one_queue_wait_for_each_other(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(GROUP.policy(1))
    order: list[str] = []

    async def mount(depth: int) -> None:
        async with gate.transaction(DEVICES, [GROUP.mount_device(0, depth)], soon()):
            order.append(f"begin {depth}")
            await asyncio.sleep(0)
            order.append(f"end {depth}")

    await asyncio.gather(mount(0), mount(1))
    assert order == ["begin 0", "end 0", "begin 1", "end 1"]


TWINS = (Path(__file__).parents[1] / "vectors" / "policy" / "twins.rego").read_bytes()


async def test_two_narrowings_of_one_container_are_intersected(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    """A signal that overtakes a hung exec narrows to one candidate; the exec's commit must not bring others back."""
    shared = [GROUP.description(0), {**GROUP.description(0), "name": "other"}]
    shared[0]["exec_processes"] = [{"command": ["/bin/probe"], "signals": []}]
    shared[1]["exec_processes"] = [{"command": ["/bin/probe"], "signals": []}]
    shared += [{**shared[0], "name": "third", "exec_processes": []}]
    shared[0]["signals"] = [1]
    import json

    text = (
        GROUP.policy(0).decode().replace("containers := []", f"containers := {json.dumps(shared)}")
    )
    await set_policy(text)
    await started(gate, soon, 0)
    assert len(gate.metadata().mapping("matches")[ONE]) == 3  # type: ignore[arg-type]
    ready, go = asyncio.Event(), asyncio.Event()

    async def execute() -> None:
        async with gate.transaction(ONE, [GROUP.execute(0)], soon(1)):
            ready.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(go.wait(), 0.8)

    running = asyncio.create_task(execute())
    await ready.wait()
    gate._queues._queues[ONE].deadline = 0.0  # the action is past its time
    await carry_out(gate, ONE, GROUP.signal(0, 1), deadline=soon(5))
    assert [c["name"] for c in gate.metadata().mapping("matches")[ONE]] == ["c0"]  # type: ignore[attr-defined]
    go.set()
    await running
    assert [c["name"] for c in gate.metadata().mapping("matches")[ONE]] == ["c0"]  # type: ignore[attr-defined]


async def test_inconsistent_refuses_every_change_and_still_answers(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(
        GROUP.policy(1).replace(b"get_properties := data.framework", b"dropped := data.framework")
    )
    gate.mark_inconsistent("umount failed half-way")
    assert gate.stance is Stance.INCONSISTENT
    with pytest.raises(PolicyDenied) as denied:
        await carry_out(gate, DEVICES, GROUP.mount_device(0, 0), deadline=soon())
    assert denied.value.reason_codes == ("state.inconsistent",)
    with pytest.raises(PolicyDenied) as asked:
        await gate.query(PointRequest(Point.GET_PROPERTIES, {}))
    assert asked.value.reason_codes == ("policy.rule_missing",)


async def test_observers_hear_of_each_decision_redacted(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    heard: list[DecisionRecord] = []
    gate.observers.append(heard.append)
    await set_policy(GROUP.policy(1))
    await started(gate, soon, 0)
    with pytest.raises(PolicyDenied):
        await carry_out(gate, ONE, GROUP.execute(0, ("/bin/sh",)), deadline=soon())
    assert [(r.point, r.allowed) for r in heard][-2:] == [
        ("create_container", True),
        ("exec_in_container", False),
    ]
    assert "value 0" not in repr(heard)


async def test_killed_opa_is_restarted_from_the_agents_state(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(GROUP.policy(1))
    await assembled(gate, soon)
    sidecar = sidecar_of(gate)
    pid = sidecar.pid
    assert pid is not None
    async with gate.transaction(ONE, [GROUP.create(0)], soon()):
        os.kill(pid, signal.SIGKILL)  # between decision and commit
    assert ONE in gate.metadata().mapping("started")
    with contextlib.suppress(PolicyDenied):  # the death may be noticed by this one
        await carry_out(gate, ONE, GROUP.execute(0), deadline=soon())
    await carry_out(gate, ONE, GROUP.execute(0), deadline=soon())
    assert sidecar.pid != pid
    assert sidecar.starts == 2


async def test_stopped_opa_means_deny_then_recovers(
    make_loader: Callable[..., OpaLoader], soon: Soon
) -> None:
    gate = Gate(make_loader(timeout=0.5))
    text = GROUP.policy(1)
    await gate.set_policy(text, hashlib.sha256(text).digest())
    pid = sidecar_of(gate).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(PolicyDenied) as denied:
        await carry_out(gate, DEVICES, GROUP.mount_device(0, 0), deadline=soon())
    assert denied.value.reason_codes == ("policy.evaluation",)
    assert gate.metadata().mapping("devices") == {}
    await carry_out(gate, DEVICES, GROUP.mount_device(0, 0), deadline=soon())
    await gate.close()


async def test_policy_that_loops_is_cut_off_and_opa_replaced(
    make_loader: Callable[..., OpaLoader], soon: Soon
) -> None:
    gate = Gate(make_loader(timeout=0.5))
    busy = 'mount_device := {"allowed": true} if count([1 | some _ in numbers.range(1, 100000); '
    busy += "some _ in numbers.range(1, 100000)]) > 0"
    text = f'package policy\napi_version := "0.12.0"\n{busy}\nget_properties := {{"allowed": true}}\n'.encode()
    await gate.set_policy(text, hashlib.sha256(text).digest())
    with pytest.raises(PolicyDenied) as denied:
        await carry_out(gate, DEVICES, GROUP.mount_device(0, 0), deadline=soon())
    assert denied.value.reason_codes == ("policy.evaluation",)
    assert not sidecar_of(gate).running
    assert (await gate.query(PointRequest(Point.GET_PROPERTIES, {}))).point is Point.GET_PROPERTIES
    await gate.close()


async def test_two_values_for_one_rule_are_an_evaluation_error_that_shows_neither(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    text = 'package policy\napi_version := "0.12.0"\nmount_device := {"allowed": true, "s": "secret1"}\n'
    await set_policy(text + 'mount_device := {"allowed": false, "s": "secret2"}\n')
    with pytest.raises(PolicyDenied) as denied:
        await carry_out(gate, DEVICES, GROUP.mount_device(0, 0), deadline=soon())
    assert denied.value.reason_codes == ("policy.evaluation",)
    assert "secret" not in denied.value.message


async def test_cancelled_caller_leaves_the_evaluator_in_order(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(GROUP.policy(1))
    for _ in range(5):
        task = asyncio.create_task(
            carry_out(gate, DEVICES, GROUP.mount_device(0, 0), deadline=soon())
        )
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await carry_out(gate, DEVICES, GROUP.mount_device(0, 0), deadline=soon())
    assert sidecar_of(gate).starts == 1


HEAD = 'package policy\napi_version := "0.12.0"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        (b"package policy\nx := \"\xff\"\n", "line 2: it is not UTF-8"),
        (HEAD + "x := {\n", "rego_parse_error"),
        (HEAD + "x := time.now_ns()\n", "line 3:6: rego_type_error: undefined function time.now_ns"),
        (HEAD + 'x := http.send({"method": "get", "url": "http://x"})\n', "http.send"),
        (HEAD + "x := rand.intn(\"s\", 5)\n", "rand.intn"),
        (HEAD + "x := opa.runtime()\n", "opa.runtime"),
        (HEAD + 'x := json.match_schema({}, {"$ref": "file:///etc/passwd"})\n', "json.match_schema"),
        (HEAD + "a if b\n\nb if a\n", "rego_recursion_error"),
        (HEAD + "x := data.gate.decide\nmount_device := x\n", "rego_recursion_error"),
        (b"package policy\n" + b"#" * (5 << 20), "bytes"),
    ],
)  # fmt: skip
async def test_refused_at_load_with_line_and_reason(
    text: str | bytes, says: str, gate: Gate, set_policy: SetPolicy
) -> None:
    with pytest.raises(PolicyInvalid) as refused:
        await set_policy(text)
    assert refused.value.reason_codes == ("policy.invalid",)
    assert says in refused.value.message
    assert "\n" not in refused.value.message
    assert gate.stance is Stance.DENY_ALL


@pytest.mark.parametrize(
    "text",
    [
        "package system.authz\n\nallow := true\n",
        'package system\n\nauthz["allow"] := true\n',
        'package gate\n\ndecide := {"source": "policy", "results": [{"allowed": true}], "reason": []}\n',
        "package framework\n\nflag_on(_) := true\n",
        "package data_\n\nx := 1\n",
    ],
)
async def test_foreign_package_loads_refuses_everything_and_merges_with_nothing(
    text: str, gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    await set_policy(text)
    with pytest.raises(PolicyDenied) as denied:
        await carry_out(gate, DEVICES, GROUP.mount_device(0, 0), deadline=soon())
    assert denied.value.reason_codes == ("policy.no_api_version",)
    socket = sidecar_of(gate).socket
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(b"GET /v1/policies HTTP/1.1\r\nHost: opa\r\nConnection: close\r\n\r\n")
    assert b"401" in await reader.readline()
    writer.close()


async def test_server_is_sealed(gate: Gate, set_policy: SetPolicy) -> None:
    await set_policy(GROUP.policy(1))
    socket = sidecar_of(gate).socket
    assert socket.stat().st_mode & 0o777 == 0o600
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    for line in (
        b"GET /v1/data",
        b"PUT /v1/policies/x",
        b"GET /v1/config",
        b"POST /v1/query",
        b"GET /metrics",
    ):
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(
            line + b" HTTP/1.1\r\nHost: opa\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        assert b"401" in await reader.readline(), line
        writer.close()
    pid = sidecar_of(gate).pid
    assert (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")[:-1] == [
        b"TZ=UTC", b"GOGC=400", b"GOMEMLIMIT=96MiB",
    ]  # fmt: skip


async def test_policy_that_reads_the_state_gets_one_queue(
    gate: Gate, set_policy: SetPolicy, soon: Soon
) -> None:
    """At most one container: two creations at once must not both be judged against the empty state."""
    text = (
        GROUP.policy(2)
        .decode()
        .replace(
            "create_container := data.framework.create_container",
            "create_container := data.framework.create_container if not data.metadata.started\n\n"
            'create_container := {"allowed": false} if data.metadata.started\n',
        )
    )
    await set_policy(text)
    for index in (0, 1):
        await assembled(gate, soon, index)

    async def create(index: int) -> bool:
        try:
            async with gate.transaction(GROUP.container_id(index), [GROUP.create(index)], soon()):
                await asyncio.sleep(0.05)
        except PolicyDenied:
            return False
        return True

    assert sorted(await asyncio.gather(create(0), create(1))) == [False, True]


async def test_port_forward_is_refused_until_listed(gate: Gate, set_policy: SetPolicy) -> None:
    await set_policy(GROUP.policy(1) + b"allow_port_forward := [8080]\n")
    await gate.query(PointRequest(Point.PORT_FORWARD, {"port": 8080, "protocol": "tcp"}))
    for port, protocol in ((8081, "tcp"), (8080, "udp")):
        with pytest.raises(PolicyDenied) as denied:
            await gate.query(PointRequest(Point.PORT_FORWARD, {"port": port, "protocol": protocol}))
        assert denied.value.reason_codes == ("port.not_allowed",)


async def test_undefined_port_forward_is_refused_at_that_point_only(
    gate: Gate, set_policy: SetPolicy
) -> None:
    await set_policy(
        'package policy\napi_version := "0.10.0"\nget_properties := {"allowed": true}\n'
    )
    await gate.query(PointRequest(Point.GET_PROPERTIES, {}))
    with pytest.raises(PolicyDenied) as denied:
        await gate.query(PointRequest(Point.PORT_FORWARD, {"port": 1, "protocol": "tcp"}))
    assert denied.value.reason_codes == ("policy.default_deny",)


def is_there(path: Path) -> bool:
    return path.exists()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_nothing_is_left_after_close(
    make_loader: Callable[..., OpaLoader], run_dir: Path
) -> None:
    gate = Gate(make_loader())
    text = GROUP.policy(1)
    await gate.set_policy(text, hashlib.sha256(text).digest())
    pid = sidecar_of(gate).pid
    await gate.close()
    assert not is_there(Path("/proc") / str(pid))
    assert names_in(run_dir) == []
