"""What hardware would fix at launch, read once and immutable: a new launch is a new process.

The shim gives measurement, HOST_DATA and folder. A file `launch.json` in that folder, the operator's, may add the other
members, to try other processors and failures in development:

    product "Milan" | "Genoa" | "Turin"     version 2 to 5          signer "vcek" | "vlek"     chip_seed text
    policy number                           tcb, current_tcb, committed_tcb, launch_tcb {"bootloader", "tee", "snp",
    id_block, id_auth hex                     "microcode", "fmc" (Turin)}; `tcb` is the reported one
    launch_mitigations, current_mitigations numbers (version 5)
    failures [{"request": n from 1, "status": number, "exitinfo2": number}]: those requests fail so, if they fail
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from parma_api.snp.bits import SigningKey
from parma_api.snp.product import ProductLine, TcbLayout
from parma_api.snp.report import KNOWN_VERSIONS
from parma_api.snp.tcb import Tcb
from parma_api.status import InvalidArgumentError
from parma_shim.psp.chain import known_line
from parma_shim.psp.id_auth import Identity, judge

DEFAULT_POLICY: Final = 0x30000
"""Guest policy: SMT allowed, and the bit that must be one."""
DEFAULT_TCB: Final = Tcb(TcbLayout.MILAN, bootloader=4, tee=0, snp=24, microcode=219)
TURIN_TCB: Final = Tcb(TcbLayout.TURIN, bootloader=1, tee=1, snp=4, microcode=0x51, fmc=1)
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")


@dataclass(frozen=True, slots=True)
class Failure:
    """How one request, counted from 1, fails."""

    request: int
    status: int = 0
    exitinfo2: int = 0


@dataclass(frozen=True, slots=True)
class LaunchValues:
    """`measurement` 48 bytes, `host_data` 32 bytes; `tcb` is the reported one, and the others are it unless given."""

    measurement: bytes
    host_data: bytes
    policy: int = DEFAULT_POLICY
    tcb: Tcb = DEFAULT_TCB
    chip_seed: bytes = b"parma stub chip 0"
    line: ProductLine = ProductLine.MILAN
    version: int = 3
    signer: SigningKey = SigningKey.VCEK
    current_tcb: Tcb | None = None
    committed_tcb: Tcb | None = None
    launch_tcb: Tcb | None = None
    id_block: bytes = b""
    id_auth: bytes = b""
    launch_mitigations: int = 0
    current_mitigations: int = 0
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        if len(self.measurement) != 48 or len(self.host_data) != 32:
            raise InvalidArgumentError("launch values: measurement has 48 bytes, host_data 32")
        if self.version not in KNOWN_VERSIONS:
            raise InvalidArgumentError(f"no report of version {self.version}")
        if self.signer not in (SigningKey.VCEK, SigningKey.VLEK):
            raise InvalidArgumentError("reports are signed by a VCEK or a VLEK")
        if self.version < 5 and (self.launch_mitigations or self.current_mitigations):
            raise InvalidArgumentError("mitigation vectors are of version 5")
        given = (self.tcb, self.current_tcb, self.committed_tcb, self.launch_tcb)
        if any(tcb and tcb.layout is not self.line.tcb_layout for tcb in given):
            raise InvalidArgumentError(f"a TCB has not the layout of {self.line}")
        known_line(self.line)

    def identity(self) -> Identity:
        """Of the ID block, if there is one. Raises LaunchRefusedError where it is not of this launch."""
        if not self.id_block:
            return Identity()
        return judge(self.id_block, self.id_auth, self.measurement, self.policy)


def read_launch(values: Mapping[str, object]) -> LaunchValues:
    """From JSON. Raises InvalidArgumentError, also for a member that is not known."""
    line = known_line(_text(values.get("product", "Milan"), "product"))
    turin = line.tcb_layout is TcbLayout.TURIN
    found: dict[str, Any] = {"line": line, "tcb": TURIN_TCB if turin else DEFAULT_TCB}
    for name, value in values.items():
        reader = _READERS.get(name)
        if reader is None:
            raise InvalidArgumentError(f"launch values: unknown member {name!r}")
        field, read = reader
        if name in _TCBS:
            found[field] = _tcb(value, line, name)
        elif name != "product":
            found[field] = read(value, name)
    missing = {"measurement", "host_data"} - found.keys()
    if missing:
        raise InvalidArgumentError(f"launch values: {', '.join(sorted(missing))} missing")
    return LaunchValues(**found)


def _hex(value: object, name: str) -> bytes:
    text = _text(value, name)
    if not _HEX.fullmatch(text):
        raise InvalidArgumentError(f"launch values: {name} is not hexadecimal")
    return bytes.fromhex(text)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentError(f"launch values: {name} is no text")
    return value


def _number(value: object, name: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise InvalidArgumentError(f"launch values: {name} is no number of 64 bits")
    return value


def _signer(value: object, name: str) -> SigningKey:
    try:
        return SigningKey[_text(value, name).upper()]
    except KeyError as error:
        raise InvalidArgumentError("launch values: signer is vcek or vlek") from error


def _tcb(value: object, line: ProductLine, name: str) -> Tcb:
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"launch values: {name} is no object of patch levels")
    levels = {str(key): _number(level, name) for key, level in value.items()}
    try:
        return Tcb(line.tcb_layout, **levels)
    except TypeError as error:
        raise InvalidArgumentError(
            f"launch values: {name} lacks a patch level, or has one too many"
        ) from error


def _failures(value: object, name: str) -> tuple[Failure, ...]:
    if not isinstance(value, list):
        raise InvalidArgumentError(f"launch values: {name} is no list")
    return tuple(_failure(row, name) for row in value)


def _failure(row: object, name: str) -> Failure:
    if not isinstance(row, dict) or not {"request"} <= row.keys() <= {
        "request",
        "status",
        "exitinfo2",
    }:
        raise InvalidArgumentError(f"launch values: {name} have request, status and exitinfo2")
    return Failure(**{key: _number(value, name) for key, value in row.items()})


_TCBS: Final = frozenset(("tcb", "current_tcb", "committed_tcb", "launch_tcb"))
_READERS: Final[Mapping[str, tuple[str, Callable[[object, str], object]]]] = {
    **{name: (name, _hex) for name in ("measurement", "host_data", "id_block", "id_auth")},
    **{
        name: (name, _number)
        for name in ("policy", "version", "launch_mitigations", "current_mitigations")
    },
    **{name: (name, _text) for name in _TCBS},
    "product": ("line", _text),
    "chip_seed": ("chip_seed", lambda value, name: _text(value, name).encode()),
    "signer": ("signer", _signer),
    "failures": ("failures", _failures),
}
