"""The sidecar's settings, from its environment, which the group's policy lists and so measures.

    SkrSideCarArgs  base64 of {"certcache"?, "identity"?, "maaconfig"?, "trusted_roots"?}
        certcache      {"endpoint_type": "AMD" | "AzCache" | "LocalTHIM", "endpoint", "tee_type"?, "api_version"?}:
                       where certificates come from when the host's do not belong to the report
        identity       {"client_id"?}: a managed identity, for Azure's vaults
        maaconfig      {"user_agent"?}
        trusted_roots  PEM: who may vouch for endpoints and sign released keys; without it the image's usual roots
    Port            8080    LogFile  a path, else standard error    LogLevel  trace to error, else info
    ServerType      http, the only one

`trusted_roots` is Parma's own, and the reason to measure this: a key from a vault of the host's choice is no secret.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from parma_api.status import InvalidArgumentError
from parma_tenant.claims.encoding import from_b64, read_object

ARGUMENTS: Final = "SkrSideCarArgs"
_MAX_ARGUMENTS: Final = 128 * 1024
_MAX_TEXT: Final = 512
_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class OptionsError(InvalidArgumentError):
    """A setting that cannot be meant."""


@dataclass(frozen=True, slots=True)
class CertCache:
    """Where certificates are had; the words are Azure's."""

    kind: str
    endpoint: str
    tee_type: str
    api_version: str


@dataclass(frozen=True, slots=True)
class Options:
    """`roots` None: the usual ones. `client_id` None: no managed identity, "" the system's."""

    port: int = 8080
    roots: bytes | None = None
    cert_cache: CertCache | None = None
    client_id: str | None = None
    user_agent: str = "parma-skr"
    log_file: str | None = None
    log_level: int = logging.INFO


def read_options(environment: Mapping[str, str]) -> Options:
    """Raises OptionsError."""
    arguments = _arguments(environment.get(ARGUMENTS, ""))
    roots = arguments.get("trusted_roots")
    identity = arguments.get("identity")
    return Options(
        port=_port(environment.get("Port") or "8080"),
        roots=None if roots is None else _text(roots, "trusted_roots", _MAX_ARGUMENTS).encode(),
        cert_cache=_cert_cache(arguments.get("certcache")),
        client_id=None if identity is None else _identity(identity),
        user_agent=_user_agent(arguments.get("maaconfig", {})),
        log_file=environment.get("LogFile") or None,
        log_level=_level(environment.get("LogLevel") or "info", environment.get("ServerType")),
    )


def _arguments(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = read_object(from_b64(text, ARGUMENTS), ARGUMENTS, _MAX_ARGUMENTS)
    except InvalidArgumentError as error:
        raise OptionsError(error.message) from None
    return _known(found, ARGUMENTS, {"certcache", "identity", "maaconfig", "trusted_roots"})


def _known(value: object, what: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) - names:
        raise OptionsError(f"{what} is an object with no members but {', '.join(sorted(names))}")
    return value


def _text(value: object, what: str, limit: int = _MAX_TEXT) -> str:
    if not isinstance(value, str) or len(value) > limit or not value.isascii():
        raise OptionsError(f"{what} is a text of at most {limit} ASCII letters")
    return value


def _cert_cache(value: object) -> CertCache | None:
    if value is None:
        return None
    found = _known(value, "certcache", {"endpoint_type", "endpoint", "tee_type", "api_version"})
    kind = found.get("endpoint_type")
    if kind not in ("AMD", "AzCache", "LocalTHIM"):
        raise OptionsError("certcache's endpoint_type is AMD, AzCache or LocalTHIM")
    rest = (
        _text(found.get(name, ""), f"certcache's {name}")
        for name in ("endpoint", "tee_type", "api_version")
    )
    return CertCache(kind, *rest)


def _identity(value: object) -> str:
    return _text(
        _known(value, "identity", {"client_id"}).get("client_id", ""), "identity's client_id"
    )


def _user_agent(value: object) -> str:
    found = _known(value, "maaconfig", {"user_agent"})
    return _text(found.get("user_agent", "parma-skr"), "maaconfig's user_agent")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 0xFFFF):
        raise OptionsError("Port is a number up to 65535")
    return int(text)


def _level(text: str, server_type: str | None) -> int:
    if server_type not in (None, "", "http"):
        raise OptionsError("ServerType is http: this sidecar has no gRPC interface")
    if text.lower() not in _LEVELS:
        raise OptionsError(f"LogLevel is one of {', '.join(_LEVELS)}")
    return _LEVELS[text.lower()]
