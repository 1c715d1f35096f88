"""Which chips there are: each launch writes its chip and TCB down, so that the key service knows them."""

from __future__ import annotations

import fcntl
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parma_api.snp.product import ProductLine
from parma_api.snp.tcb import Tcb, TcbError, parse_tcb
from parma_shim.psp.launch import LaunchValues
from parma_shim.psp.leaf import chip_id

_HWID: Final = re.compile(r"(?:[0-9a-f]{2}){8,64}")


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip and the TCBs that it has had."""

    seed: bytes
    tcbs: tuple[Tcb, ...]


def register(folder: Path, launch: LaunchValues) -> None:
    """Writes the chip of a launch down. Raises OSError."""
    path = _path(folder, launch.line, hwid(launch))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with (path.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = find(folder, launch.line, hwid(launch))
        tcbs = {tcb.to_bytes().hex() for tcb in known.tcbs} if known else set()
        tcbs.add(launch.tcb.to_bytes().hex())
        document = {"seed": launch.chip_seed.hex(), "tcbs": sorted(tcbs)}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(document))
        part.replace(path)


def hwid(launch: LaunchValues) -> str:
    """The chip's name in the key service's paths."""
    return chip_id(launch.chip_seed, launch.line)[: launch.line.chip_id_size].hex()


def find(folder: Path, line: ProductLine, name: str) -> Chip | None:
    """The chip of that name, or None; a damaged record is none."""
    if not _HWID.fullmatch(name):
        return None
    try:
        document = json.loads(_path(folder, line, name).read_bytes())
        tcbs = tuple(parse_tcb(bytes.fromhex(raw), line.tcb_layout) for raw in document["tcbs"])
        return Chip(bytes.fromhex(document["seed"]), tcbs)
    except (OSError, ValueError, KeyError, TypeError, TcbError):
        return None


def _path(folder: Path, line: ProductLine, name: str) -> Path:
    return folder / "chips" / f"{line}-{name}.json"
