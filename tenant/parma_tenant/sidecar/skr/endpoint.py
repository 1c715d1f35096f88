"""The URLs of requests: which service, which key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from parma_api.status import InvalidArgumentError

_ENDPOINT: Final = re.compile(
    r"(?:https://)?(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,253})(?P<port>:[0-9]{1,5})?/?"
)
_KID: Final = re.compile(r"(?P<name>[0-9A-Za-z-]{1,127})(?:/(?P<version>[0-9a-f]{32}))?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service behind TLS; `host` without brackets, as certificates name it."""

    host: str
    base: str

    def url(self, path: str) -> str:
        """The URL of a path that begins with a slash."""
        return self.base + path


def read_endpoint(value: object, what: str) -> Endpoint:
    """`HOST[:PORT]`, or the same behind `https://`. Raises InvalidArgumentError."""
    found = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    port = found["port"] if found else None
    if found is None or (port and not 0 < int(port[1:]) <= 0xFFFF):
        raise InvalidArgumentError(f"{what} is HOST[:PORT] or https://HOST[:PORT]")
    host = found["host"].lower()
    return Endpoint(host.strip("[]"), f"https://{host}{port or ''}")


@dataclass(frozen=True, slots=True)
class KeyName:
    """A key of a vault; `version` None: the newest."""

    name: str
    version: str | None

    def path(self) -> str:
        """Beneath the vault's endpoint."""
        return f"/keys/{self.name}" + (f"/{self.version}" if self.version else "")

    def is_named_by(self, kid: object) -> bool:
        """Whether a vault's `kid`, a URL, is this key's: of any version where none was asked for."""
        if not isinstance(kid, str) or "/keys/" not in kid:
            return False
        found = _KID.fullmatch(kid.rpartition("/keys/")[2])
        return (
            found is not None
            and found["name"].lower() == self.name.lower()
            and (self.version is None or found["version"] == self.version)
        )


def read_kid(value: object) -> KeyName:
    """`NAME` or `NAME/VERSION`. Raises InvalidArgumentError."""
    found = _KID.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidArgumentError("kid is a key's NAME or NAME/VERSION")
    return KeyName(found["name"], found["version"])
