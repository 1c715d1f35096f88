"""A volume's key on its way: as the JWK that brokers keep and release."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from parma_tenant.volume.key import VolumeKey, VolumeKeyError, decode


def key_to_jwk(key: VolumeKey) -> dict[str, Any]:
    """The JWK: secret."""
    text = base64.urlsafe_b64encode(key.encode()).rstrip(b"=").decode()
    return {"kty": "oct", "k": text, "key_ops": ["encrypt", "decrypt"]}


def key_from_jwk(jwk: Mapping[str, Any]) -> VolumeKey:
    """The inverse, of a key that a broker released. Raises VolumeKeyError, which quotes nothing of it."""
    text = jwk.get("k")
    if jwk.get("kty") not in ("oct", "oct-HSM") or not isinstance(text, str) or len(text) > 1024:
        raise VolumeKeyError("the released key is no volume's: it is no oct key")
    try:
        data = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise VolumeKeyError("the released key is no base64url") from None
    return decode(data)
