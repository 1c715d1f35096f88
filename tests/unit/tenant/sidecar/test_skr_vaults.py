"""Releases that are none, signers that nobody named, a managed identity."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_api.status import (
    ApiError,
    DataLossError,
    PermissionDeniedError,
)
from parma_tenant.broker.authority import load_authority
from parma_tenant.broker.database import open_database
from parma_tenant.broker.vault import Master, Vault
from parma_tenant.claims.encoding import canonical_json, to_b64url
from parma_tenant.claims.keys import rsa_jwk
from parma_tenant.release import jws
from parma_tenant.release.keywrap import Wrapping, wrap
from parma_tenant.release.trust import read_roots
from parma_tenant.services.upstream import Upstream
from parma_tenant.sidecar.skr.attestation import Attestation
from parma_tenant.sidecar.skr.endpoint import KeyName, read_endpoint
from parma_tenant.sidecar.skr.evidence import GroupEvidence
from parma_tenant.sidecar.skr.release import KeyRelease, Wanted
from tests.unit.tenant.broker.kit import CANARY
from tests.unit.tenant.sidecar.conftest import Source
from tests.unit.tenant.stub import StubPsp


class Vaults:
    """In the place of both services: a token that nobody checks, and the signed release that the test wants."""

    def __init__(self, tmp_path: Path) -> None:
        self.authority = load_authority(
            Vault(open_database(tmp_path / "x.sqlite"), Master(b"m" * 32)), ("vault.example",)
        )
        self.changes: dict[str, Any] = {}
        self.header: dict[str, Any] = self.authority.header()
        self.value: object = None

    async def post(self, url: str, body: dict[str, Any], *_: object) -> dict[str, Any]:
        if "/attest/" in url:
            inner = json.loads(base64.urlsafe_b64decode(body["runtimeData"]["data"]))
            self.to = inner["keys"][0]
            return {"token": "t.o.k"}
        if self.value is not None:
            return {"value": self.value}
        from parma_tenant.claims.keys import read_rsa

        wrapped = wrap(CANARY, read_rsa(self.to), Wrapping.SHA256)
        hsm = {"header": {"enc": str(Wrapping.SHA256)}, "ciphertext": to_b64url(wrapped)}
        hsm |= self.changes.pop("hsm", {})
        key = {
            "kid": "https://vault.example/keys/k/" + "0" * 32,
            "kty": "oct-HSM",
            "key_ops": ["decrypt", 5],
            "key_hsm": to_b64url(canonical_json(hsm)),
        } | self.changes
        payload = {"response": {"key": {"key": key}}}
        return {"value": jws.sign(self.header, payload, self.authority.signer_key)}


@pytest.fixture
def vaults(psp: StubPsp, tmp_path: Path) -> tuple[Vaults, KeyRelease, Wanted]:
    found = Vaults(tmp_path)
    source = Source(psp)
    client: Upstream = found  # type: ignore[assignment]
    attestation = Attestation(GroupEvidence(source, [source.supplier]), client, lambda: b"cose")
    keys = KeyRelease(attestation, client, read_roots(found.authority.root_pem()))
    vault = read_endpoint("vault.example", "v")
    return found, keys, Wanted(vault, vault, KeyName("k", None))


async def test_a_vault_that_means_it(vaults: tuple[Vaults, KeyRelease, Wanted]) -> None:
    _, keys, wanted = vaults
    jwk = await keys.release(wanted)
    assert (jwk["k"], jwk["key_ops"]) == (to_b64url(CANARY), ["decrypt"])


async def test_releases_that_are_none(
    vaults: tuple[Vaults, KeyRelease, Wanted], group_key: rsa.RSAPrivateKey
) -> None:
    found, keys, wanted = vaults
    theirs = wrap(CANARY, group_key.public_key(), Wrapping.SHA256)
    for changes in (
        {"kid": "https://vault.example/keys/other/" + "0" * 32},
        {"kid": 5},
        {"kid": "k"},
        {"kty": "RSA"},
        {"kty": "secret"},
        {"key_hsm": "!"},
        {"key_hsm": to_b64url(b"[]")},
        {"hsm": {"header": {"enc": "CKM_RSA_AES_KEY_WRAP"}}},
        {"hsm": {"header": []}},
        {"hsm": {"ciphertext": to_b64url(theirs)}},
        {"hsm": {"ciphertext": ""}},
    ):
        found.changes = dict(changes)
        with pytest.raises(DataLossError) as caught:
            await keys.release(wanted)
        assert "canary" not in caught.value.message
    for value in (5, "", "a.b", "a.b.c", "x" * 300_000):
        found.value = value
        with pytest.raises(DataLossError):
            await keys.release(wanted)


async def test_signers_that_nobody_named(
    vaults: tuple[Vaults, KeyRelease, Wanted], tmp_path: Path
) -> None:
    found, keys, wanted = vaults
    other = Vaults(tmp_path / "..")
    good = found.header
    for header in ({"x5c": None}, {"x5c": []}, {"x5c": ["!"]}, {"x5c": other.header["x5c"]}):
        found.header = good | header
        with pytest.raises(ApiError):
            await keys.release(wanted)
    found.header = good
    elsewhere = Wanted(wanted.maa, read_endpoint("elsewhere.example", "v"), wanted.key)
    with pytest.raises(PermissionDeniedError, match="elsewhere"):
        await keys.release(elsewhere)


async def test_a_managed_identity(psp: StubPsp) -> None:
    asked: list[str] = []

    class Metadata:
        async def get_object(self, url: str, _what: str, headers: dict[str, str]) -> dict[str, Any]:
            assert headers == {"Metadata": "true"}
            asked.append(url)
            return {"access_token": "bearer"}

    client: Upstream = Metadata()  # type: ignore[assignment]
    attestation = Attestation(GroupEvidence(Source(psp), []), client, bytes)
    for host, client_id in (
        ("x.vault.azure.net", None),
        ("x.managedhsm.azure.net", "me"),
        ("vault.example", ""),
        ("vault.example", None),
    ):
        keys = KeyRelease(attestation, client, [], client_id)
        token = await keys._identity_token(read_endpoint(host, "v"))
        assert token == ("" if (host, client_id) == ("vault.example", None) else "bearer")
    assert len(asked) == 3
    assert asked[0].endswith("resource=https%3A%2F%2Fvault.azure.net")
    assert asked[1].endswith("resource=https%3A%2F%2Fmanagedhsm.azure.net&client_id=me")


async def test_the_wrapping_key_is_made_for_each_release(
    vaults: tuple[Vaults, KeyRelease, Wanted],
) -> None:
    found, keys, wanted = vaults
    await keys.release(wanted)
    first = found.to
    await keys.release(wanted)
    assert first != found.to
    assert set(first) == set(rsa_jwk(rsa.generate_private_key(65537, 2048).public_key()))
