"""What groups send, made with the stub's reports, and what administrators import."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from parma_tenant.claims.encoding import canonical_json, to_b64url
from parma_tenant.claims.keys import rsa_jwk
from parma_tenant.claims.runtime import report_data_of
from tests.unit.tenant.stub import StubPsp

CANARY = b"canary-secret-0123456789abcdefgh"
"""The key that no log may hold."""


def chain_of(psp: StubPsp) -> bytes:
    """PEM: leaf, intermediate, root."""
    document = json.loads(psp.certificates)
    return str(document["vcekCert"] + document["certificateChain"]).encode()


async def submission(
    psp: StubPsp, runtime: bytes, second_half: bytes = bytes(32), **more: object
) -> dict[str, Any]:
    """The body of MAA's call."""
    report = await psp.source.report(report_data_of(runtime, second_half))
    inner = {"SnpReport": to_b64url(report), "VcekCertChain": to_b64url(chain_of(psp))}
    return {
        "report": to_b64url(canonical_json(inner)),
        "runtimeData": {"data": to_b64url(runtime), "dataType": "JSON"},
        **more,
    }


def runtime_of(key: rsa.RSAPrivateKey, **more: object) -> bytes:
    return canonical_json({"keys": [rsa_jwk(key.public_key(), "wrapping")], **more})


def policy_for(issuer: str, host_data: bytes, *, stub: bool = True, **more: object) -> bytes:
    """A release policy for that execution policy."""
    conditions: list[dict[str, object]] = [
        {"claim": "x-ms-sevsnpvm-hostdata", "equals": host_data.hex()},
        {"claim": "x-ms-attestation-type", "equals": "sevsnpvm"},
        {"claim": "x-ms-sevsnpvm-is-debuggable", "equals": False},
        *({"claim": name, "equals": value} for name, value in more.items()),
    ]
    if stub:
        conditions.append({"claim": "x-parma-stub", "equals": True})
    document = {"version": "1.0.0", "anyOf": [{"authority": issuer, "allOf": conditions}]}
    return json.dumps(document).encode()


def import_body(policy: bytes, jwk: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of Key Vault's import."""
    return {
        "key": jwk or {"kty": "oct-HSM", "k": to_b64url(CANARY), "key_ops": ["decrypt"]},
        "hsm": True,
        "attributes": {"exportable": True},
        "release_policy": {
            "contentType": "application/json; charset=utf-8",
            "data": to_b64url(policy),
        },
    }


def encodings_of(secret: bytes) -> tuple[bytes, ...]:
    """How a secret could look in a log or a file."""
    return (
        secret,
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
        secret.hex().encode(),
        repr(secret).encode(),
    )


def fresh_secret() -> bytes:
    return os.urandom(32)
