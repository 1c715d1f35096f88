"""What `image.toml` says, typed, and where results are kept."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE_DIR = Path(__file__).resolve().parent.parent
TREE = IMAGE_DIR.parent.parent


class BuildError(Exception):
    """A build that cannot go on: what, why, what to do."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the two images."""

    name: str
    cmdline: str
    groups: dict[str, tuple[str, ...]]
    keep_signatures: bool
    drop_guest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """The whole of image.toml."""

    epoch: int
    uuid: str
    suite: str
    architecture: str
    sets: dict[str, tuple[str, ...]]
    take: tuple[str, ...]
    dlopen: tuple[str, ...]
    directories: tuple[str, ...]
    links: dict[str, str]
    files: dict[str, str]
    python_drop: tuple[str, ...]
    site_drop: tuple[str, ...]
    keep_dist_info: tuple[str, ...]
    drop_api: tuple[str, ...]
    drop_bundle: tuple[str, ...]
    initrd_modules: tuple[str, ...]
    variants: dict[str, Variant]


def _variant(name: str, table: dict[str, Any], modules: dict[str, list[str]]) -> Variant:
    known = {**modules, **table["extra_modules"]}
    return Variant(
        name=name,
        cmdline=table["cmdline"],
        groups={group: tuple(known[group]) for group in table["modules"]},
        keep_signatures=table["signatures"],
        drop_guest=tuple(table["drop_guest"]),
    )


def load(path: Path = IMAGE_DIR / "image.toml") -> Config:
    """Reads image.toml; a missing key is a KeyError that names it."""
    data = tomllib.loads(path.read_text())
    root, python = data["root"], data["python"]
    return Config(
        epoch=data["epoch"],
        uuid=data["uuid"],
        suite=data["debian"]["suite"],
        architecture=data["debian"]["architecture"],
        sets={name: tuple(packages) for name, packages in data["debian"]["sets"].items()},
        take=tuple(root["take"]),
        dlopen=tuple(root["dlopen"]),
        directories=tuple(root["directories"]),
        links=root["links"],
        files=root["files"],
        python_drop=tuple(python["drop"]),
        site_drop=tuple(python["drop_site"]),
        keep_dist_info=tuple(python["keep_dist_info"]),
        drop_api=tuple(data["agent"]["drop_api"]),
        drop_bundle=tuple(data["agent"]["drop_bundle"]),
        initrd_modules=tuple(data["modules"]["initrd"]),
        variants={
            name: _variant(name, table, data["modules"]) for name, table in data["variants"].items()
        },
    )


def cache_dir() -> Path:
    """The folder for results that outlive a checkout: $PARMA_CACHE, else ~/.cache/parma."""
    return Path(os.environ.get("PARMA_CACHE") or Path.home() / ".cache" / "parma")
