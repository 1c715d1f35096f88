"""The broker without its network: attest, import, release. Blocking: call it in a thread."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from parma_api.status import InvalidArgumentError, PermissionDeniedError
from parma_tenant.broker.attestation import STUB_CLAIM, AttestationService
from parma_tenant.broker.attributes import is_usable, read_attributes
from parma_tenant.broker.authority import Authority
from parma_tenant.broker.collateral import Gathered
from parma_tenant.broker.evidence import Submission
from parma_tenant.broker.vault import StoredKey, Vault, check_name, new_version
from parma_tenant.claims.encoding import canonical_json, from_b64url, read_object, to_b64url
from parma_tenant.claims.keys import read_rsa, rsa_jwk
from parma_tenant.release import jws
from parma_tenant.release.grammar import ReleasePolicy, parse_policy
from parma_tenant.release.keywrap import wrap, wrapping_named
from parma_tenant.release.material import from_jwk

TOKEN_SECONDS: Final = 600
_CONTENT_TYPE: Final = "application/json; charset=utf-8"
_MAX_KEY_BODY: Final = 128 * 1024
_MAX_RELEASE_BODY: Final = jws.MAX_SIZE + 4096
_MAX_NONCE: Final = 256
_MAX_OPS: Final = 16


@dataclass(frozen=True, slots=True)
class Broker:
    """`issuer`: this service's URL, without a slash at the end; `clock`: seconds of the epoch."""

    issuer: str
    authority: Authority
    attestation: AttestationService
    vault: Vault
    clock: Callable[[], float] = time.time

    def certificates(self) -> dict[str, Any]:
        """The JWK set by which tokens are checked."""
        public = self.authority.signer_key.public_key()
        jwk = {
            name: value
            for name, value in rsa_jwk(public, self.authority.kid).items()
            if name != "key_ops"
        }
        return {"keys": [jwk | {"use": "sig", "alg": jws.ALGORITHM, "x5c": self.authority.x5c()}]}

    def challenge(self) -> dict[str, Any]:
        """A nonce; runtime data that carries it is fresh."""
        return {"nonce": to_b64url(self.attestation.challenges.new())}

    def attest(self, submission: Submission, gathered: Gathered) -> dict[str, Any]:
        """A token for evidence that holds. Raises RefusedError, InvalidArgumentError."""
        claims = self.attestation.claims(submission, gathered)
        now = int(self.clock())
        token = {
            "iss": self.issuer,
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
            "jti": secrets.token_hex(32),
            **claims,
        }
        header = {"typ": "JWT", "kid": self.authority.kid, "jku": f"{self.issuer}/certs"}
        return {"token": jws.sign(header, token, self.authority.signer_key)}

    def put_key(self, name: str, body: bytes) -> dict[str, Any]:
        """A new version of a key. Raises InvalidArgumentError, ResourceExhaustedError, UnavailableError."""
        document = _known(
            read_object(body, "the request", _MAX_KEY_BODY),
            "the request",
            {"key", "hsm", "attributes", "release_policy", "tags"},
        )
        jwk = document.get("key")
        if not isinstance(jwk, dict):
            raise InvalidArgumentError("key is a JWK")
        attributes = read_attributes(document.get("attributes"))
        material = from_jwk(jwk)
        key = StoredKey(
            check_name(name),
            new_version(),
            material.kind,
            document.get("hsm") is True or str(jwk.get("kty")).endswith("-HSM"),
            _key_ops(jwk.get("key_ops", [])),
            attributes | {"created": int(self.clock())},
            _policy_text(document.get("release_policy")),
        )
        self.vault.put(key, material)
        return self._shown(key)

    def show_key(self, name: str, version: str | None) -> dict[str, Any]:
        """A key without its material. Raises NotFoundError."""
        key, _ = self.vault.get(name, version)
        return self._shown(key)

    def delete_key(self, name: str) -> None:
        """All its versions. Raises NotFoundError."""
        self.vault.delete(name)

    def release(
        self, name: str, version: str | None, body: bytes, api_version: str
    ) -> dict[str, Any]:
        """The key, wrapped to the RSA key of a token that satisfies its policy, in a signed text.

        Raises PermissionDeniedError, InvalidArgumentError, NotFoundError.
        """
        document = _known(
            read_object(body, "the request", _MAX_RELEASE_BODY),
            "the request",
            {"target", "enc", "nonce"},
        )
        wrapping = wrapping_named(document.get("enc", "CKM_RSA_AES_KEY_WRAP"))
        nonce = document.get("nonce", "")
        if not isinstance(nonce, str) or len(nonce) > _MAX_NONCE:
            raise InvalidArgumentError(f"nonce is a text of at most {_MAX_NONCE} letters")
        claims = self._token(document.get("target"))
        key, material = self.vault.get(name, version)
        if not is_usable(key.attributes, self.clock()):
            raise PermissionDeniedError("the key is disabled, or its time is over or has not come")
        if not _released_by(key.policy, self.issuer, claims):
            raise PermissionDeniedError(
                "the token's claims do not satisfy the key's release policy"
            )
        to = _wrapping_key(claims)
        hsm = {
            "schema_version": "1.0",
            "header": {"alg": "dir", "enc": str(wrapping), "kid": self.authority.kid},
            "ciphertext": to_b64url(wrap(material.data, to, wrapping)),
        }
        shown = self._shown(key)
        shown["key"] = shown["key"] | {"key_hsm": to_b64url(canonical_json(hsm))}
        request = {"api-version": api_version, "enc": str(wrapping), "kid": self._kid(key)}
        payload = {
            "request": request | ({"nonce": nonce} if nonce else {}),
            "response": {"key": shown},
        }
        return {"value": jws.sign(self.authority.header(), payload, self.authority.signer_key)}

    def _token(self, text: object) -> dict[str, Any]:
        """The claims of a token of this service whose time is not over."""
        if not isinstance(text, str):
            raise InvalidArgumentError("target is the token of an attestation service")
        claims = jws.verify(text, self.authority.signer_key.public_key())
        now, begin, end = self.clock(), claims.get("nbf"), claims.get("exp")
        if claims.get("iss") != self.issuer:
            raise PermissionDeniedError("the token is another service's")
        if not isinstance(begin, int) or not isinstance(end, int) or not begin <= now < end:
            raise PermissionDeniedError("the token's time is over, or has not come: attest again")
        return claims

    def _kid(self, key: StoredKey) -> str:
        return f"{self.issuer}/keys/{key.name}/{key.version}"

    def _shown(self, key: StoredKey) -> dict[str, Any]:
        """As Key Vault shows a key; the material is not in it."""
        kty = f"{key.kind}-HSM" if key.hsm else str(key.kind)
        return {
            "key": {"kid": self._kid(key), "kty": kty, "key_ops": list(key.key_ops)},
            "attributes": dict(key.attributes),
            "release_policy": {
                "contentType": _CONTENT_TYPE,
                "data": to_b64url(key.policy_text.encode()),
            },
        }


def _released_by(policy: ReleasePolicy, issuer: str, claims: Mapping[str, Any]) -> bool:
    """Whether the claims are enough.

    A stub's are only where the policy says so: without that claim they must not be.
    """
    if not policy.allows(issuer, claims):
        return False
    if claims.get(STUB_CLAIM) is False:
        return True
    rest = {name: value for name, value in claims.items() if name != STUB_CLAIM}
    return not policy.allows(issuer, rest)


def _wrapping_key(claims: Mapping[str, Any]) -> rsa.RSAPublicKey:
    """The one RSA key of the runtime claims; which of several is meant would be the sender's choice."""
    runtime = claims.get("x-ms-runtime")
    keys = runtime.get("keys") if isinstance(runtime, dict) else None
    found = [
        jwk
        for jwk in (keys if isinstance(keys, list) else ())
        if isinstance(jwk, dict) and jwk.get("kty") == "RSA"
    ]
    if len(found) != 1:
        raise PermissionDeniedError("the token's runtime claims do not hold exactly one RSA key")
    return read_rsa(found[0])


def _known(document: object, what: str, names: set[str]) -> dict[str, Any]:
    """Refuses what would be passed over: it could be a condition."""
    if not isinstance(document, dict) or set(document) - names:
        raise InvalidArgumentError(f"{what} has no members but {', '.join(sorted(names))}")
    return document


def _key_ops(value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > _MAX_OPS
        or not all(isinstance(op, str) and len(op) <= 32 for op in value)
    ):
        raise InvalidArgumentError("key_ops is a list of names")
    return tuple(value)


def _policy_text(value: object) -> str:
    """The policy, read once so that no key is kept under one that cannot be read."""
    if "data" not in _known(value, "release_policy", {"contentType", "data", "immutable"}):
        raise InvalidArgumentError("release_policy has data: a policy as base64url")
    assert isinstance(value, dict)
    data = from_b64url(value["data"], "the release policy")
    parse_policy(data)
    return data.decode()
