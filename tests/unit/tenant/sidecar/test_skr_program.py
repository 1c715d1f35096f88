"""The sidecar's settings and its program."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from parma_api.status import (
    FailedPreconditionError,
    InvalidArgumentError,
)
from parma_tenant.sidecar.skr.endpoint import read_endpoint, read_kid
from parma_tenant.sidecar.skr.options import CertCache, OptionsError, read_options
from tests.unit.tenant.broker.conftest import Client
from tests.unit.tenant.sidecar.conftest import sidecar
from tests.unit.tenant.stub import StubPsp


def arguments(**members: object) -> dict[str, str]:
    return {"SkrSideCarArgs": base64.b64encode(json.dumps(members).encode()).decode()}


def test_options() -> None:
    assert read_options({}).port == 8080
    cache = {"endpoint_type": "AMD", "endpoint": "kds", "tee_type": "Milan"}
    found = read_options(
        arguments(
            certcache=cache,
            identity={"client_id": "me"},
            maaconfig={"user_agent": "u"},
            trusted_roots="pem",
        )
        | {"Port": "9000", "LogLevel": "error", "ServerType": "http"}
    )
    assert (found.port, found.client_id, found.user_agent, found.roots) == (9000, "me", "u", b"pem")
    assert found.cert_cache == CertCache("AMD", "kds", "Milan", "")
    assert found.log_level == logging.ERROR


@pytest.mark.parametrize(
    "environment",
    [
        {"SkrSideCarArgs": "!"},
        {"SkrSideCarArgs": "e30"},
        arguments(unknown=1),
        arguments(certcache=5),
        arguments(certcache={"endpoint_type": "KDS"}),
        arguments(certcache={"endpoint_type": "AMD", "more": 1}),
        arguments(identity=[]),
        arguments(identity={"client_id": 5}),
        arguments(maaconfig=5),
        arguments(trusted_roots=5),
        {"Port": "x"},
        {"Port": "99999"},
        {"LogLevel": "loud"},
        {"ServerType": "grpc"},
    ],
)
def test_options_that_cannot_be_meant(environment: dict[str, str]) -> None:
    with pytest.raises(OptionsError) as caught:
        read_options(environment)
    assert "\n" not in caught.value.message


def test_endpoints_and_names() -> None:
    for text, host, base in (
        ("Broker.example", "broker.example", "https://broker.example"),
        ("https://10.0.0.1:8443/", "10.0.0.1", "https://10.0.0.1:8443"),
        ("[fd00::1]:8443", "fd00::1", "https://[fd00::1]:8443"),
    ):
        found = read_endpoint(text, "e")
        assert (found.host, found.base) == (host, base)
    for wrong in ("", "http://x", "x:0", "x:y", "x?y", "x#y", "ftp://x", 5, None, "x y", "a" * 300):
        with pytest.raises(InvalidArgumentError):
            read_endpoint(wrong, "e")
    name = read_kid("k/" + "1" * 32)
    assert name.path() == "/keys/k/" + "1" * 32
    assert name.is_named_by("https://v/keys/K/" + "1" * 32)
    for other in ("https://v/keys/k/" + "2" * 32, "https://v/keys/k", "k", None):
        assert not name.is_named_by(other)


MAIN = [
    sys.executable,
    "-c",
    "from parma_tenant.sidecar.skr.main import main; raise SystemExit(main())",
]


def test_it_does_not_start_without_reports_or_with_bad_settings() -> None:
    for environment, reason in (
        ({}, "no source of reports"),
        ({"Port": "x"}, "Port"),
        ({"SkrSideCarArgs": "!"}, "base64"),
    ):
        done = subprocess.run(
            MAIN, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: parma-skr: ")
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


async def test_roots_that_are_none(psp: StubPsp, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError):
        async with sidecar(psp, b"no PEM", tmp_path):
            pytest.fail("started")
    with pytest.raises(FailedPreconditionError, match="root certificates"):
        async with sidecar(psp, b"", tmp_path):
            pytest.fail("started")


async def test_it_ends_with_sigterm(psp: StubPsp, broker: Client) -> None:
    environment = arguments(trusted_roots=broker.about.root.read_text())
    environment |= {"PARMA_REPORT_SOCKET": psp.path, "Port": "0"}
    process = await asyncio.create_subprocess_exec(
        *MAIN, env=os.environ | environment, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        assert b"reports come from" in await process.stderr.readline()
        assert b"listening on 127.0.0.1:" in await process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
