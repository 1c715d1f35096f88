"""`parma broker` as a process: killed at any moment it loses no key that it confirmed; it says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_api.cli import run
from parma_tenant.broker.run import Running
from parma_tenant.claims.encoding import to_b64url
from tests.unit.tenant.broker.conftest import Client, client_of
from tests.unit.tenant.broker.kit import fresh_secret, import_body, policy_for
from tests.unit.tenant.broker.test_broker import key_in
from tests.unit.tenant.stub import StubPsp

MAIN = "import sys; from parma_tenant.cli.broker import broker; broker(standalone_mode=True)"


@dataclass
class Process:
    """A broker of its own, and a client of it."""

    process: asyncio.subprocess.Process
    client: Client


@contextlib.asynccontextmanager
async def started(state: Path, psp: StubPsp, *options: str) -> AsyncIterator[Process]:
    command = ["--state", str(state), "--trust-root", str(psp.root), "--json", "--rate", "100000"]
    with (state.parent / f"{state.name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAIN, *command, "--listen", "127.0.0.1:0", *options),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        about = json.loads(line)
        running = Running(
            about["issuer"], about["port"], Path(about["root"]), Path(about["admin_token"])
        )
        client = await client_of(running)
        async with client.session:
            yield Process(process, client)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


ISSUER = "https://broker.example"


@dataclass
class Sent:
    """Keys by name: all that were sent, and those of them that the broker confirmed."""

    all: dict[str, bytes]
    confirmed: set[str]


async def put_until_killed(broker: Process, psp: StubPsp, after: int, prefix: str) -> Sent:
    """The broker is killed once it has confirmed so many, while others are on their way."""
    sent = Sent({}, set())
    policy = policy_for(ISSUER, psp.host_data)
    names = iter(range(10_000))

    async def importer() -> None:
        while True:
            name, secret = f"{prefix}{next(names)}", fresh_secret()
            sent.all[name] = secret
            body = import_body(policy, {"kty": "oct", "k": to_b64url(secret)})
            status, answer = await broker.client.put(name, body)
            assert status == 200, answer
            sent.confirmed.add(name)
            if len(sent.confirmed) == after:
                broker.process.kill()

    found = await asyncio.gather(*(importer() for _ in range(4)), return_exceptions=True)
    assert all(isinstance(error, aiohttp.ClientError | OSError) for error in found), found
    assert len(sent.all) > len(sent.confirmed) >= after
    return sent


async def test_kill_9_leaves_each_key_whole_or_not_there(
    psp: StubPsp, group_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """One that was confirmed is there."""
    state, rounds = tmp_path / "state", list[Sent]()
    for after in (1, 7, 12):
        async with started(state, psp, "--issuer", ISSUER) as broker:
            rounds.append(await put_until_killed(broker, psp, after, f"r{after}-"))
    sent = {name: secret for one in rounds for name, secret in one.all.items()}
    confirmed = set.union(*(one.confirmed for one in rounds))
    async with started(state, psp, "--issuer", ISSUER) as broker:
        token = await broker.client.token(psp, group_key)
        for name, secret in sent.items():
            status, answer = await broker.client.release(name, token)
            assert status == 200 or (status == 404 and name not in confirmed), answer
            assert status == 404 or key_in(answer, group_key) == secret
        broker.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(broker.process.wait(), 30) == 0
    log = (tmp_path / "state.log").read_text()
    assert "Traceback" not in log
    assert "x-parma-stub" in log
    assert not any(to_b64url(secret) in log for secret in sent.values())


@pytest.mark.parametrize(
    "options",
    [
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1:99999"),
        ("--listen", "0.0.0.0:0", "--http"),
        ("--database", "mysql://x"),
        ("--expect", "nowhere"),
        ("--trust-root", "nowhere"),
        ("--rate", "0"),
        ("--issuer", "x"),
    ],
)
def test_bad_usage_is_one_line(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["broker", "--state", str(tmp_path), "--listen", "127.0.0.1:0", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_an_expectation_of_report_data_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expect = tmp_path / "expect.json"
    expect.write_text(json.dumps({"report_data": "00" * 64}))
    assert run(["broker", "--state", str(tmp_path), "--expect", str(expect)]) == 2
    assert "report_data" in capsys.readouterr().err


def test_help_has_an_example() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Example: parma broker" in done.stdout
