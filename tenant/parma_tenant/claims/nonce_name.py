"""The verifier's nonce in the name that a TLS client asks for (SNI, RFC 6066): the first thing that a server hears.

    name  "parma-" base32 of the nonce (52 letters, lower case), ".", the server's name

The nonce is no secret: the host may read it. The server's own name is behind it for proxies that route by name.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from typing import Final

from parma_api.status import InvalidArgumentError
from parma_tenant.claims.runtime import NONCE_SIZE

_PREFIX: Final = "parma-"
_LABEL: Final = re.compile(r"parma-([a-z2-7]{52})\..+")
_HOST: Final = re.compile(r"(?=.{1,190}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_NO_NAME: Final = "attested.invalid"


def name_with(nonce: bytes, host: str) -> bytes:
    """The name to ask for; an address has no name and gets one. Raises InvalidArgumentError for a host that is none."""
    base = base64.b32encode(nonce).decode().rstrip("=").lower()
    if _is_address(host):
        host = _NO_NAME
    if not _HOST.fullmatch(host):
        raise InvalidArgumentError(f"{host[:80]!r} is no host name")
    return f"{_PREFIX}{base}.{host.rstrip('.')}".encode()


def nonce_in(name: bytes | None) -> bytes | None:
    """The nonce in a name that a client asked for, or None."""
    try:
        found = _LABEL.fullmatch((name or b"").decode("ascii").lower())
        nonce = base64.b32decode(found[1].upper() + "====") if found else b""
    except (UnicodeDecodeError, binascii.Error):
        return None
    return nonce if len(nonce) == NONCE_SIZE else None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
