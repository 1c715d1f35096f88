"""Transcript, security context, log, channel's lower end, front: the agent's smaller parts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import select
import socket
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import betterproto
import grpclib.const
import pytest

from parma_api.channel.mux import Mux
from parma_api.channel.session import Side
from parma_api.channel.stream import stream_pair
from parma_api.gen.parma.agent.v1 import (
    AgentStub,
    HealthRequest,
    PauseGroupRequest,
    SetPolicyRequest,
    SetPolicyResponse,
    Stance,
)
from parma_api.policy.decision import DecisionRecord
from parma_api.status import ApiError, UnavailableError
from parma_api.ttrpc.client import TtrpcClient
from parma_api.ttrpc.service import MethodInfo
from parma_guest.agent import VERSION, context_dir, port
from parma_guest.agent.boot import serve_channel
from parma_guest.agent.context_dir import SecurityContext
from parma_guest.agent.front import Front, handler_name
from parma_guest.agent.hostlog import HostLog, say
from parma_guest.agent.policy_setup import report_data
from parma_guest.agent.sandbox import MAX_EVENTS, Events
from parma_guest.agent.transcript import START, Transcript, encode, link, replay
from parma_guest.attest.image import Image

# Transcript


def record(number: int, allowed: bool = True) -> DecisionRecord:
    return DecisionRecord("mount_device", {"target": str(number)}, allowed, ("a.b",), number)


def test_the_chain_by_hand() -> None:
    transcript = Transcript()
    entry = (
        b'{"allowed":true,"generation":0,"input":{"target":"0"},"point":"mount_device",'
        b'"reason_codes":["a.b"],"sequence":0}'
    )
    assert transcript.head == hashlib.sha256(b"parma transcript 1\n").digest()
    transcript.record(record(0))
    assert encode(0, record(0)) == entry
    assert transcript.head == hashlib.sha256(START + hashlib.sha256(entry).digest()).digest()


def test_any_change_changes_the_head() -> None:
    entries = [encode(n, record(n)) for n in range(4)]
    head = replay(START, entries)
    assert replay(START, entries[::-1]) != head
    assert replay(START, entries[:-1]) != head
    assert replay(START, [*entries[:-1], encode(3, record(3, allowed=False))]) != head
    assert link(replay(START, entries[:-1]), entries[-1]) == head


def test_the_newest_entries_are_kept_and_still_lead_to_the_head() -> None:
    transcript = Transcript(max_bytes=500)
    for number in range(50):
        transcript.record(record(number))
    kept = transcript.kept()
    assert 0 < len(kept.entries) < 10
    assert kept.skipped + len(kept.entries) == transcript.count == 50
    assert replay(kept.base, kept.entries) == kept.head == transcript.head


# Security context


def test_files_of_the_context() -> None:
    context = SecurityContext(b"policy", b"", b"info")
    signed = {"application/vnd.tcb-reference-info.v1+cose": b"tcb", "unknown/type": b"x"}
    assert context.files(signed) == {
        "security-policy-base64": base64.b64encode(b"policy"),
        "reference-info-base64": base64.b64encode(b"info"),
        "tcb-reference-info-base64": base64.b64encode(b"tcb"),
    }


def test_the_directory(tmp_path: Path) -> None:
    name = context_dir.write(str(tmp_path), {"a": b"1"})
    assert name is not None
    assert name.startswith("security-context-")
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o755
    assert (tmp_path / name / "a").read_bytes() == b"1"
    assert context_dir.write(str(tmp_path), {}) is None
    context_dir.remove(str(tmp_path), name)
    assert list(tmp_path.iterdir()) == []


def test_report_data_is_no_claim_of_a_key() -> None:
    data = report_data(b"policy")
    assert len(data) == 64
    assert data[32:] != bytes(32)
    assert data != report_data(b"policy\n")


# Log


def lines(fd: int) -> list[str]:
    return os.read(fd, 65536).decode().splitlines()


def test_the_log_leads_nowhere_until_it_is_allowed() -> None:
    ours, theirs = os.pipe()
    handler = HostLog(theirs)
    logger = logging.getLogger("parma test of the log")
    logger.addHandler(handler)
    logger.propagate = False
    logger.error("secret")
    handler.allow()
    logger.error("told\nand\x1b[31m %s", "x" * 1000)
    try:
        int("secret")
    except ValueError:
        logger.exception("failed")
    told, failed = lines(ours)
    assert told.startswith("parma: error told?and?[31m x")
    assert len(told) == 240
    assert failed.startswith("parma: error failed (ValueError at test_the_log")
    assert "secret" not in failed
    os.close(ours)
    os.close(theirs)


def test_a_console_that_is_gone_is_no_error() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    say("x", theirs)
    os.close(theirs)


# Events


async def test_old_events_are_dropped() -> None:
    events = Events()
    for number in range(MAX_EVENTS + 5):
        events.out_of_memory(str(number))
    assert await events.after(0) == (6, "5")


# Channel's lower end


async def test_a_port_is_open_once_the_host_is_there() -> None:
    """A pipe's end stands for the port: it hangs up as one does whose host is not connected."""
    master, slave = os.openpty()
    path = os.ttyname(slave)
    stream = await asyncio.wait_for(port.open_port(path), 10)
    os.write(master, b"x\n")
    assert await stream.read() == b"x\n"
    stream.abort()
    os.close(slave)
    os.close(master)


async def test_a_port_without_a_host_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events = iter(
        [[(0, select.POLLHUP)], [(0, select.POLLOUT | select.POLLHUP)], [(0, select.POLLOUT)]]
    )

    class Poll:
        def register(self, fd: int, mask: int) -> None:
            assert fd > 0

        def poll(self, timeout: int) -> list[tuple[int, int]]:
            return next(events)

    monkeypatch.setattr(port.select, "poll", Poll)
    (tmp_path / "port").touch()
    stream = await port.open_port(str(tmp_path / "port"))
    assert next(events, None) is None
    stream.abort()


async def test_a_port_that_is_not_there() -> None:
    with pytest.raises(UnavailableError):
        await port.open_port("/dev/vport9p9")


async def test_only_the_host_is_accepted() -> None:
    """K20: a peer with another CID is closed without a word."""

    class Listener:
        def __init__(self) -> None:
            self.pairs = [socket.socketpair() for _ in range(3)]
            self.cids = [1, 3, 2]
            self.asked = 0

    listener = Listener()
    loop = asyncio.get_running_loop()

    async def accept(_: object) -> tuple[socket.socket, tuple[int, int]]:
        at, listener.asked = listener.asked, listener.asked + 1
        return listener.pairs[at][1], (listener.cids[at], 999)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "sock_accept", accept)
        stream = await port.accept_host(listener)  # type: ignore[arg-type]
    assert listener.asked == 3
    for ours, _ in listener.pairs[:2]:
        assert ours.recv(1) == b""
    stream.abort()
    for pair in listener.pairs:
        for end in pair:
            end.close()


# Front


async def test_health_is_answered_before_anything_else_is_there() -> None:
    front = Front(Image.STUB)
    ours, theirs = stream_pair()
    openers: list[object] = []
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve_channel(front, theirs, openers.append))
        mux = Mux(ours, side=Side.HOST)
        group.create_task(mux.run())
        client = TtrpcClient(mux.control)
        stub = AgentStub(client)
        health = await stub.health(HealthRequest())
        assert (health.stance, health.variant, health.version) == (Stance.DENY_ALL, "stub", VERSION)
        assert health.kernel == os.uname().release
        assert health.uptime_usec > 0
        waiting = asyncio.ensure_future(stub.pause_group(PauseGroupRequest()))
        await stub.health(HealthRequest())
        assert not waiting.done()
        front.failed(UnavailableError("no agent"))
        with pytest.raises(ApiError, match="no agent"):
            await waiting
        await client.close()
        mux.abort()
        await serving
    assert openers[-1] is None


async def test_the_policy_is_taken_before_the_rest_is_there() -> None:
    front = Front(Image.STUB)
    unary = grpclib.const.Cardinality.UNARY_UNARY
    info = MethodInfo("Agent", "SetPolicy", SetPolicyRequest, SetPolicyResponse, unary)
    asked = asyncio.ensure_future(front.intercept(info, SetPolicyRequest(policy=b"p"), _refused))
    await asyncio.sleep(0)
    assert not asked.done()

    async def take(request: SetPolicyRequest) -> SetPolicyResponse:
        return SetPolicyResponse(policy_sha256=request.policy.decode())

    front.policy_ready(take)
    assert await asked == SetPolicyResponse(policy_sha256="p")
    other = asyncio.ensure_future(
        front.intercept(replace(info, method="PauseGroup"), PauseGroupRequest(), _refused)
    )
    await asyncio.sleep(0)
    assert not other.done()
    front.failed(UnavailableError("no agent"))
    with pytest.raises(ApiError, match="no agent"):
        await other


async def _refused(_request: betterproto.Message) -> betterproto.Message:
    raise AssertionError("no call goes past the interceptor")


async def test_garbage_on_the_channel_ends_the_channel_only() -> None:
    front = Front(Image.STUB)
    ours, theirs = stream_pair()
    await ours.write(b"\xff" * 100)
    await serve_channel(front, theirs, lambda _: None)
    ours.abort()


@pytest.mark.parametrize(
    ("method", "name"),
    [("Health", "health"), ("SetPolicy", "set_policy"), ("PutFiles", "put_files")],
)
def test_handler_names(method: str, name: str) -> None:
    assert handler_name(method) == name


def test_the_version(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


HEAVY = {
    "aiohttp",
    "cbor2",
    "cryptography",
    "grpclib.server",
    "grpclib.client",
    "opa_client",
    "pathlib",
}
HEAVY |= {"pyudev", "requests", "importlib.metadata", "ctypes", "parma_api.policy.gate"}


def test_what_answers_first_imports_little(repository: Path) -> None:
    code = "import sys, parma_guest.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-ISc", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=repository,
    )
    assert HEAVY & set(done.stdout.split()) == set()
