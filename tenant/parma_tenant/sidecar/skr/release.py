"""Key Vault's secure key release (attestation reference section 16): a fresh RSA key, attested; the vault wraps to it.

The vault's answer counts only when it is signed under a named root, for the vault's host, and about the key asked for.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from parma_api.status import DataLossError, InvalidArgumentError
from parma_tenant.claims.encoding import canonical_json, from_b64url, read_object
from parma_tenant.claims.keys import rsa_jwk
from parma_tenant.release import jws
from parma_tenant.release.keywrap import Wrapping, unwrap
from parma_tenant.release.material import from_wrapped
from parma_tenant.release.trust import signer_of
from parma_tenant.services.upstream import Upstream
from parma_tenant.sidecar.skr.attestation import Attestation
from parma_tenant.sidecar.skr.endpoint import Endpoint, KeyName

_VERSION: Final = "api-version=7.4"
_WHAT: Final = "the key vault"
_WRAPPING: Final = Wrapping.SHA256
_RSA_BITS: Final = 2048
_MAX_HSM: Final = 64 * 1024
_AZURE: Final = (".vault.azure.net", ".managedhsm.azure.net")
_IDENTITY: Final = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key, where it is, and who says that this group may have it."""

    maa: Endpoint
    vault: Endpoint
    key: KeyName
    access_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class KeyRelease:
    """`roots`: who may vouch for vaults. `client_id`: see `options`."""

    attestation: Attestation
    client: Upstream
    roots: Sequence[x509.Certificate]
    client_id: str | None = None

    async def release(self, wanted: Wanted) -> dict[str, Any]:
        """The private JWK: secret. Raises PermissionDeniedError, UnavailableError, DataLossError, ApiError."""
        key = await asyncio.to_thread(rsa.generate_private_key, 65537, _RSA_BITS)
        runtime = canonical_json({"keys": [rsa_jwk(key.public_key())]})
        token = await self.attestation.token(wanted.maa, runtime)
        bearer = wanted.access_token or await self._identity_token(wanted.vault)
        answer = await self.client.post(
            wanted.vault.url(f"{wanted.key.path()}/release?{_VERSION}"),
            {"target": token, "enc": str(_WRAPPING)},
            _WHAT,
            {"Authorization": f"Bearer {bearer}"} if bearer else None,
        )
        return await asyncio.to_thread(self._open, answer.get("value"), wanted, key)

    async def _identity_token(self, vault: Endpoint) -> str:
        """Of the managed identity: Azure's vaults want one."""
        if self.client_id is None and not vault.host.endswith(_AZURE):
            return ""
        kind = "managedhsm" if "managedhsm" in vault.host else "vault"
        url = f"{_IDENTITY}&resource=https%3A%2F%2F{kind}.azure.net"
        if self.client_id:
            url += f"&client_id={self.client_id}"
        what = "the service of managed identities"
        token = (await self.client.get_object(url, what, {"Metadata": "true"})).get("access_token")
        if not isinstance(token, str) or not token.isascii():
            raise DataLossError(f"{what} answers without a token")
        return token

    def _open(self, value: object, wanted: Wanted, key: rsa.RSAPrivateKey) -> dict[str, Any]:
        if not isinstance(value, str):
            raise DataLossError(f"{_WHAT} answers without a signed text")
        shown = self._verified(value, wanted)
        try:
            hsm = read_object(from_b64url(shown.get("key_hsm"), "key_hsm"), "key_hsm", _MAX_HSM)
            header = hsm.get("header")
            if not isinstance(header, dict) or header.get("enc") != _WRAPPING:
                raise DataLossError(f"{_WHAT} wrapped the key in another way than was asked")
            data = unwrap(from_b64url(hsm.get("ciphertext"), "ciphertext"), key, _WRAPPING)
            material = from_wrapped(shown.get("kty"), data)
        except InvalidArgumentError as error:
            raise DataLossError(f"{_WHAT} answers without a key: {error.message}") from None
        return material.to_jwk(str(shown["kid"]), _operations(shown.get("key_ops")))

    def _verified(self, text: str, wanted: Wanted) -> dict[str, Any]:
        """`response.key.key` of a release that is signed for this vault and about this key."""
        now = datetime.datetime.now(datetime.UTC)
        try:
            signer = signer_of(jws.read_header(text), self.roots, wanted.vault.host, now)
            found: Any = jws.verify(text, signer)
        except InvalidArgumentError as error:
            raise DataLossError(f"{_WHAT} answers with no release: {error.message}") from None
        for name in ("response", "key", "key"):
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, dict) or not wanted.key.is_named_by(found.get("kid")):
            raise DataLossError(f"{_WHAT} released another key than was asked for")
        return found


def _operations(value: object) -> list[str]:
    return [op for op in value if isinstance(op, str)] if isinstance(value, list) else []


def key_text(jwk: dict[str, Any]) -> str:
    """The JWK as the sidecar's answer has it."""
    return json.dumps(jwk, separators=(",", ":"), sort_keys=True)
