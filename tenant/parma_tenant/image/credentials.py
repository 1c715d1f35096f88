"""Credentials for registries, from docker's configuration and its credential helpers.

Sources: docker/cli cli/config (configfile, credentials); docker-credential-helpers protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from parma_tenant.image.errors import RegistryError, shown
from parma_tenant.image.reference import DEFAULT_HOST

_MAX_FILE: Final = 4 << 20
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_SECONDS: Final = 60
_DOCKER_KEY: Final = "https://index.docker.io/v1/"
_TOKEN_USER: Final = "<token>"  # noqa: S105 (what helpers say in place of a name)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and password, or an identity token of a token service; never shown."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def config_path() -> Path:
    """$DOCKER_CONFIG, else ~/.docker; config.json in it."""
    named = os.environ.get("DOCKER_CONFIG")
    return (Path(named) if named else Path.home() / ".docker") / "config.json"


def find_credentials(host: str, path: Path) -> Credentials | None:
    """Credentials for a registry's host; None where there are none. Raises RegistryError."""
    config = _read(path)
    key = _DOCKER_KEY if host == DEFAULT_HOST else host
    helper = _member(config, "credHelpers").get(key) or _member(config, "credHelpers").get(host)
    helper = helper or config.get("credsStore")
    if helper:
        found = _ask_helper(str(helper), key)
        if found is not None:
            return found
    return _from_auths(_member(config, "auths"), key, path)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_MAX_FILE))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise RegistryError(f"{path} is no JSON: correct it, or log in again") from None
    if not isinstance(config, dict):
        raise RegistryError(f"{path} is no JSON object")
    return config


def _member(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _from_auths(auths: Mapping[str, Any], key: str, path: Path) -> Credentials | None:
    entry = auths.get(key) or next(
        (auths[name] for name in auths if _host(name) == _host(key)), None
    )
    if not isinstance(entry, dict):
        return None
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    token = str(entry.get("identitytoken") or "")
    if encoded := entry.get("auth"):
        try:
            text = base64.b64decode(str(encoded), validate=True).decode()
        except (binascii.Error, ValueError):
            raise RegistryError(
                f"{path}: the entry for {_host(key)} is damaged: log in again"
            ) from None
        username, colon, password = text.partition(":")
        if not colon:
            raise RegistryError(f"{path}: the entry for {_host(key)} is damaged: log in again")
    if not (token or username):
        return None
    return Credentials(username, password.rstrip("\0"), token)


def _host(key: str) -> str:
    """A key of `auths` without scheme and path, as docker compares them."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _ask_helper(name: str, key: str) -> Credentials | None:
    program = f"docker-credential-{name}"
    if not _HELPER.fullmatch(name):
        raise RegistryError(f"{shown(program)} is no name of a credential helper")
    try:
        done = subprocess.run(
            [program, "get"],
            input=key.encode(),
            capture_output=True,
            check=False,
            timeout=_HELPER_SECONDS,
        )
    except FileNotFoundError:
        raise RegistryError(
            f"{program}, named in docker's configuration, is not installed"
        ) from None
    except (OSError, subprocess.TimeoutExpired):
        raise RegistryError(f"{program} does not answer") from None
    if done.returncode != 0:
        if b"not found" in done.stdout + done.stderr:
            return None
        raise RegistryError(f"{program} failed for {key}")
    return _of_helper(done.stdout, program)


def _of_helper(output: bytes, program: str) -> Credentials:
    try:
        answer = json.loads(output)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise RegistryError(f"{program} gives an answer that cannot be read") from None
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username, secret)
