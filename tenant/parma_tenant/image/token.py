"""Token services of registries (distribution docs: "Token Authentication", "OAuth2 token authentication")."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

from parma_tenant.image.credentials import Credentials
from parma_tenant.image.documents import parse_json
from parma_tenant.image.errors import RegistryError, shown
from parma_tenant.image.http import Client, is_loopback

_MAX_ANSWER: Final = 1 << 20
_PARAMETER: Final = re.compile(r'([A-Za-z]+)\s*=\s*(?:"([^"]*)"|([^\s",]+))')
_CLIENT_ID: Final = "parma"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks for: `scheme` is basic or bearer."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenge(header: str) -> Challenge | None:
    """A WWW-Authenticate header; None for a scheme that is not known."""
    scheme, _, rest = header.strip().partition(" ")
    found = {key.lower(): quoted or plain for key, quoted, plain in _PARAMETER.findall(rest)}
    if scheme.lower() == "basic":
        return Challenge("basic")
    if scheme.lower() != "bearer" or not found.get("realm"):
        return None
    return Challenge("bearer", found["realm"], found.get("service", ""), found.get("scope", ""))


def basic(credentials: Credentials) -> str:
    """The value of an Authorization header."""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()


def fetch_token(
    client: Client,
    challenge: Challenge,
    scope: str,
    credentials: Credentials | None,
    *,
    plain_host: str,
) -> str:
    """A token for `scope`; without TLS from `plain_host`, or this machine, only. Raises RegistryError."""
    parts = urlsplit(challenge.realm)
    host = parts.netloc
    plain_allowed = bool(plain_host) and (host == plain_host or is_loopback(host))
    if parts.scheme != "https" and not plain_allowed:
        raise RegistryError(
            f"the token service {shown(challenge.realm)} has no TLS: no credentials are sent there"
        )
    query = {"service": challenge.service, "scope": scope}
    headers: dict[str, str] = {}
    form: dict[str, str] | None = None
    if credentials is not None and credentials.identity_token:
        form = {
            **query,
            "grant_type": "refresh_token",
            "refresh_token": credentials.identity_token,
            "client_id": _CLIENT_ID,
        }
    elif credentials is not None:
        headers["Authorization"] = basic(credentials)
    url = challenge.realm
    if form is None:
        url += ("&" if parts.query else "?") + urlencode(query)
    body = None if form is None else urlencode(form).encode()
    with client.get(url, headers, plain_allowed=plain_allowed, body=body) as answer:
        if answer.status != 200:
            raise RegistryError(
                f"{host} refuses a token (HTTP {answer.status}): log in again, or correct the image's name"
            )
        document = parse_json(answer.reader.read(_MAX_ANSWER), f"the token service {host}")
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not token.isprintable():
        raise RegistryError(f"{host} gives no token")
    return token
