"""Node profiles: data files with the variables and mounts that a platform gives to containers.

A profile is `NAME@VERSION.json`; `NAME` alone is the newest version. Files are looked for in the folders of
`folders()`; a text with a slash, or that ends in .json, is a path. The schema is in docs/policy-guide.md.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from parma_tenant.generate.model import EnvRule, MountRule, Strategy
from parma_tenant.source.errors import SourceError

_MAX_FILE: Final = 1 << 20
_MEMBERS: Final = frozenset(
    {"name", "version", "about", "env", "mounts", "seccomp", "privilegedCapabilities"}
)


@dataclass(frozen=True, slots=True)
class ProfileEnv:
    """A variable that the platform adds."""

    rule: EnvRule
    example: str
    """A text that fits, for lint."""


@dataclass(frozen=True, slots=True)
class ProfileMount:
    """A mount that the platform adds; `feature` is what a group must not be without."""

    rule: MountRule
    example: str
    """A name beneath `sandbox://` that fits the rule's source."""
    feature: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """One version of a node's habits."""

    name: str
    version: str
    about: str
    env: tuple[ProfileEnv, ...] = ()
    mounts: tuple[ProfileMount, ...] = ()
    seccomp: Mapping[str, str] | None = None
    """Digests of the profiles that the node's runtime brings, by Kubernetes' type."""
    privileged_capabilities: tuple[str, ...] | None = None
    """What privileged containers have on the node; None: all."""

    @property
    def title(self) -> str:
        """NAME@VERSION."""
        return f"{self.name}@{self.version}"


def folders() -> tuple[Path, ...]:
    """The user's, the machine's, and those that come with Parma; the first that has a file counts."""
    home = os.environ.get("XDG_CONFIG_HOME")
    own = (Path(home) if home else Path.home() / ".config") / "parma" / "profiles"
    return (own, Path("/etc/parma/profiles"), Path(__file__).parent / "data")


def load_profile(name: str, places: Sequence[Path] | None = None) -> Profile:
    """Raises SourceError."""
    if "/" in name or name.endswith(".json"):
        return _read(Path(name))
    found = available(folders() if places is None else places)
    wanted = name if "@" in name else _newest(name, found)
    if wanted not in found:
        names = ", ".join(sorted(found))
        raise SourceError(f"there is no node profile {name}; there are {names}")
    return _read(found[wanted])


def available(places: Iterable[Path]) -> dict[str, Path]:
    """Titles of profiles and their files."""
    found: dict[str, Path] = {}
    for folder in places:
        for path in sorted(folder.glob("*@*.json")):
            found.setdefault(path.stem, path)
    return found


def newest(places: Sequence[Path] | None = None) -> list[Profile]:
    """The newest version of each profile. Raises SourceError."""
    found = available(folders() if places is None else places)
    names = sorted({title.partition("@")[0] for title in found})
    return [_read(found[_newest(name, found)]) for name in names]


def _newest(name: str, titles: Iterable[str]) -> str:
    versions = [title for title in titles if title.partition("@")[0] == name]
    return max(versions, key=_version_key, default=name)


def _version_key(title: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall("[0-9]+", title.partition("@")[2]))


def _read(path: Path) -> Profile:
    try:
        data = path.read_bytes()
        document = json.loads(data) if len(data) <= _MAX_FILE else None
    except OSError as error:
        raise SourceError(f"node profile {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"node profile {path} is no JSON: {error}") from error
    try:
        return _parse(document)
    except (TypeError, LookupError, ValueError, AttributeError) as error:
        raise SourceError(
            f"node profile {path} is not of the form that the guide describes: {error!r}"
        ) from error


def _parse(document: Any) -> Profile:
    if unknown := set(document) - _MEMBERS:
        raise ValueError(f"unknown member {min(unknown)}")
    capabilities = document.get("privilegedCapabilities")
    return Profile(
        name=str(document["name"]),
        version=str(document["version"]),
        about=str(document["about"]),
        env=tuple(_env(entry) for entry in document.get("env", ())),
        mounts=tuple(_mount(entry) for entry in document.get("mounts", ())),
        seccomp={str(key): str(value) for key, value in document.get("seccomp", {}).items()},
        privileged_capabilities=None if capabilities is None else tuple(map(str, capabilities)),
    )


def _env(entry: Mapping[str, Any]) -> ProfileEnv:
    rule = EnvRule(str(entry["pattern"]), Strategy(entry["strategy"]))
    return ProfileEnv(rule, str(entry.get("example", rule.pattern)))


def _mount(entry: Mapping[str, Any]) -> ProfileMount:
    source = str(entry["source"])
    rule = MountRule(
        str(entry["destination"]), source, tuple(map(str, entry["options"])), str(entry["type"])
    )
    return ProfileMount(rule, str(entry.get("example", source)), str(entry.get("feature", "")))
