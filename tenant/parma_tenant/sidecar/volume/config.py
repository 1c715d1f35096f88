"""The sidecar's settings.

    ParmaVolumes  base64 of {"volumes": [VOLUME, ...], "maa_endpoint", "akv_endpoint", "skr_port"?, "patience"?,
                  "trusted_roots"?}
    VOLUME        {"url" or "path", "kid", "mount_point", "read_write"?}

url            http(s)://...: read by ranges; written as an Azure page blob is (`?comp=page`)
path           a file or block device of this container
kid            the volume's key, NAME or NAME/VERSION
mount_point    an absolute path beneath the emptyDir that is shared
trusted_roots  PEM: who may vouch for https:// stores; without it the image's usual roots
patience       seconds to wait for the key-release sidecar and its services (default 300)
"""

from __future__ import annotations

import base64
import binascii
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from parma_api.status import InvalidArgumentError

VARIABLE: Final = "ParmaVolumes"
_MAX_SIZE: Final = 64 * 1024
_MAX_VOLUMES: Final = 16
_TEXT: Final = 2048
_PLACE: Final = re.compile(r"(/[A-Za-z0-9._-]{1,100}){1,16}")


class SettingsError(InvalidArgumentError):
    """A setting that cannot be meant."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume; exactly one of `url` and `path` is there."""

    url: str | None
    path: str | None
    kid: str
    mount_point: str
    read_write: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """See the module; `patience` in seconds."""

    volumes: tuple[Volume, ...]
    maa_endpoint: str
    akv_endpoint: str
    skr_port: int = 8080
    patience: int = 300
    trusted_roots: str = ""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Raises SettingsError."""
    found = _known(
        _document(environment.get(VARIABLE, "")),
        VARIABLE,
        {"volumes", "maa_endpoint", "akv_endpoint", "skr_port", "patience", "trusted_roots"},
    )
    rows = found.get("volumes")
    if not isinstance(rows, list) or not 0 < len(rows) <= _MAX_VOLUMES:
        raise SettingsError(f"{VARIABLE}: volumes is a list of 1 to {_MAX_VOLUMES}")
    volumes = tuple(_volume(row, f"volumes[{number}]") for number, row in enumerate(rows))
    if len({volume.mount_point for volume in volumes}) != len(volumes):
        raise SettingsError(f"{VARIABLE}: two volumes have one mount_point")
    return Settings(
        volumes,
        _text(found.get("maa_endpoint"), "maa_endpoint"),
        _text(found.get("akv_endpoint"), "akv_endpoint"),
        _number(found.get("skr_port", 8080), "skr_port", 0xFFFF),
        _number(found.get("patience", 300), "patience", 86400),
        _text(found["trusted_roots"], "trusted_roots", _MAX_SIZE)
        if "trusted_roots" in found
        else "",
    )


def _document(text: str) -> object:
    if not text:
        raise SettingsError(f"{VARIABLE} is not set: base64 of a JSON object, see its page")
    try:
        if len(text) <= _MAX_SIZE:
            return json.loads(base64.b64decode(text, validate=True), object_pairs_hook=_no_doubles)
    except (ValueError, binascii.Error, RecursionError):
        pass
    raise SettingsError(f"{VARIABLE} is no base64 of JSON, or has a name twice")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _known(value: object, what: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) - names:
        raise SettingsError(f"{what} is an object with no members but {', '.join(sorted(names))}")
    return value


def _volume(value: object, what: str) -> Volume:
    row = _known(value, what, {"url", "path", "kid", "mount_point", "read_write"})
    url, path = (
        None if row.get(name) is None else _text(row[name], f"{what}: {name}")
        for name in ("url", "path")
    )
    if (url is None) is (path is None):
        raise SettingsError(f"{what}: exactly one of url and path is there")
    if path is not None and not path.startswith("/"):
        raise SettingsError(f"{what}: path is not absolute")
    place, writable = row.get("mount_point"), row.get("read_write", False)
    if (
        not isinstance(place, str)
        or not _PLACE.fullmatch(place)
        or place != posixpath.normpath(place)
    ):
        raise SettingsError(f"{what}: mount_point is an absolute path in plain form")
    if not isinstance(writable, bool):
        raise SettingsError(f"{what}: read_write is true or false")
    return Volume(url, path, _text(row.get("kid"), f"{what}: kid"), place, writable)


def _text(value: object, what: str, most: int = _TEXT) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isascii():
        raise SettingsError(f"{what} is a text of 1 to {most} ASCII letters")
    return value


def _number(value: object, what: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise SettingsError(f"{what} is a number up to {most}")
    return value
