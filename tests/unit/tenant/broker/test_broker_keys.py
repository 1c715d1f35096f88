"""`parma broker key`: the administrator's commands against a broker of their own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_api.cli import run
from parma_tenant.claims.encoding import to_b64url
from tests.unit.tenant.broker.conftest import Client
from tests.unit.tenant.broker.kit import CANARY, encodings_of, policy_for
from tests.unit.tenant.broker.test_broker import key_in
from tests.unit.tenant.stub import StubPsp


class Administrator:
    """Runs commands in a thread: the broker is in this process."""

    def __init__(self, client: Client, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.client, self.folder, self.capsys = client, folder, capsys
        self.said = ""

    def file(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    async def key(self, *words: str, **more: str) -> int:
        about = self.client.about
        options = {"broker": about.issuer, "root": about.root, "admin-token": about.admin} | more
        named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.capsys.readouterr()
        status = await asyncio.to_thread(run, ["broker", "key", *words, *named])
        captured = self.capsys.readouterr()
        self.said = captured.out + captured.err
        return status


@pytest.fixture
def admin(broker: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Administrator:
    return Administrator(broker, tmp_path, capsys)


async def test_import_show_delete(
    admin: Administrator, psp: StubPsp, group_key: rsa.RSAPrivateKey
) -> None:
    policy = admin.file("policy", policy_for(admin.client.about.issuer, psp.host_data))
    raw = admin.file("raw", CANARY)
    jwk = admin.file("jwk", json.dumps({"kty": "oct", "k": to_b64url(CANARY[::-1])}).encode())
    for option, path, secret in (("--raw", raw, CANARY), ("--jwk", jwk, CANARY[::-1])):
        assert await admin.key("import", "k", "--release-policy", policy, option, path) == 0
        assert admin.said.startswith(f"{admin.client.about.issuer}/keys/k/")
        _, answer = await admin.client.release("k", await admin.client.token(psp, group_key))
        assert key_in(answer, group_key) == secret
    assert await admin.key("show", "k") == 0
    assert json.loads(admin.said)["attributes"]["exportable"] is True
    assert not any(encoded.decode() in admin.said for encoded in encodings_of(CANARY))
    assert await admin.key("delete", "k") == 0
    assert await admin.key("show", "k") == 2
    assert "404" in admin.said


async def test_what_cannot_be_meant_is_one_line(admin: Administrator, psp: StubPsp) -> None:
    policy = admin.file("policy", policy_for(admin.client.about.issuer, psp.host_data))
    raw, short = admin.file("raw", CANARY), admin.file("short", b"short")
    token = admin.file("token", b"0" * 64)
    bad = admin.file("bad", b"{}")
    good = ("import", "k", "--release-policy", policy)
    for words, more, reason in (
        (good, {}, "--jwk and --raw"),
        ((*good, "--raw", raw, "--jwk", raw), {}, "--jwk and --raw"),
        ((*good, "--raw", short), {}, "16 to 512"),
        ((*good, "--jwk", short), {}, "JSON"),
        (("import", "k", "--release-policy", bad, "--raw", raw), {}, "release policy"),
        ((*good, "--raw", raw), {"admin-token": token}, "401"),
        ((*good, "--raw", raw), {"root": raw}, "certificates"),
        ((*good, "--raw", raw), {"broker": "http://127.0.0.1"}, "https://"),
        ((*good, "--raw", raw), {"broker": "https://127.0.0.1:1"}, "no connection"),
        (("show", "a b"), {}, "letters"),
        (("show", "k"), {}, "404"),
    ):
        assert await admin.key(*words, **more) == 2, words
        assert admin.said.startswith("error: ")
        assert reason in admin.said
        assert admin.said.count("\n") == 1
        assert "canary" not in admin.said
