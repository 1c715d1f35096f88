"""What a relying party demands: the object of `--expect` (contracts, section 3), read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from parma_api.snp.bits import AbiVersion
from parma_api.snp.report import FirmwareVersion
from parma_api.status import InvalidArgumentError

MAX_SIZE: Final = 256 * 1024
_COMPONENTS: Final = ("bootloader", "tee", "snp", "microcode", "fmc")
_PLATFORM: Final = ("smt", "tsme", "ecc", "rapl", "alias_check")


class ExpectationError(InvalidArgumentError):
    """The object demands something that is unknown or cannot be meant."""


@dataclass(frozen=True, slots=True)
class Mitigations:
    """Bits that the two vectors must have."""

    launch: int = 0
    current: int = 0


@dataclass(frozen=True, slots=True)
class Expectation:
    """Demands; None, or an empty mapping, demands nothing. Of a tuple one value must match."""

    measurement: tuple[bytes, ...] | None = None
    host_data: tuple[bytes, ...] | None = None
    report_data: tuple[bytes, ...] | None = None
    family_id: tuple[bytes, ...] | None = None
    image_id: tuple[bytes, ...] | None = None
    chip_id: tuple[bytes, ...] | None = None
    id_key_digests: tuple[bytes, ...] | None = None
    author_key_digests: tuple[bytes, ...] | None = None
    vmpl: int = 0
    guest_svn_min: int | None = None
    version_min: int = 2
    abi_min: AbiVersion | None = None
    firmware_min: FirmwareVersion | None = None
    tcb_min: Mapping[str, int] | None = None
    launch_tcb_min: Mapping[str, int] | None = None
    mitigations: Mitigations | None = None
    allow_debug: bool = False
    allow_migration: bool = False
    allow_provisional: bool = False
    allow_zero_chip_id: bool = False
    allow_vlek: bool = True
    forbid_smt: bool = False
    require_single_socket: bool = False
    require_author_key: bool = False
    require_crl: bool = False
    platform: Mapping[str, bool] = field(default_factory=dict)


def parse_expectation(text: bytes) -> Expectation:
    """Reads the JSON object. Raises ExpectationError for what is unknown, doubled or of another type."""
    if len(text) > MAX_SIZE:
        raise ExpectationError(f"expectations have at most {MAX_SIZE} bytes")
    try:
        document = json.loads(text, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise ExpectationError(f"expectations are no JSON: {error}") from error
    return expectation_of(document)


def expectation_of(document: object) -> Expectation:
    """The same from a JSON value. Raises ExpectationError."""
    if not isinstance(document, dict):
        raise ExpectationError("expectations are a JSON object")
    values: dict[str, Any] = {}
    for name, value in document.items():
        reader = _READERS.get(name)
        if reader is None:
            raise ExpectationError(f"unknown expectation {name!r}: known are {', '.join(_READERS)}")
        values[name] = reader(name, value)
    return Expectation(**values)


def _no_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ExpectationError("a member occurs twice in the expectations")
    return found


def _hex_of(*sizes: int) -> Callable[[str, object], tuple[bytes, ...]]:
    """A reader of one value or a list of values of one of these lengths."""

    def read(name: str, value: object) -> tuple[bytes, ...]:
        texts = value if isinstance(value, list) else [value]
        if not texts:
            raise ExpectationError(f"{name} is an empty list: nothing could match it")
        return tuple(one(name, text) for text in texts)

    def one(name: str, text: object) -> bytes:
        if isinstance(text, str) and re.fullmatch(r"([0-9a-fA-F]{2})*", text):
            value = bytes.fromhex(text)
            if len(value) in sizes:
                return value
        lengths = " or ".join(str(size) for size in sizes)
        raise ExpectationError(f"{name} is hexadecimal of {lengths} bytes, or a list of such")

    return read


def _listed(reader: Callable[[str, object], tuple[bytes, ...]]) -> Callable[[str, object], object]:
    def read(name: str, value: object) -> object:
        if not isinstance(value, list):
            raise ExpectationError(f"{name} is a list")
        return reader(name, value)

    return read


def _number(maximum: int) -> Callable[[str, object], int]:
    def read(name: str, value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"0x[0-9a-fA-F]{1,16}", value):
            value = int(value, 16)
        if type(value) is not int or not 0 <= value <= maximum:
            raise ExpectationError(f"{name} is a number from 0 to {maximum}")
        return value

    return read


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ExpectationError(f"{name} is true or false")
    return value


def _object(name: str, value: object, known: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ExpectationError(f"{name} is an object")
    if unknown := sorted(set(value) - set(known)):
        raise ExpectationError(
            f"unknown member {unknown[0]!r} of {name}: known are {', '.join(known)}"
        )
    return value


def _tcb(name: str, value: object) -> Mapping[str, int]:
    members = _object(name, value, _COMPONENTS)
    return {key: _number(0xFF)(f"{name}.{key}", level) for key, level in members.items()}


def _mitigations(name: str, value: object) -> Mitigations:
    members = _object(name, value, ("launch", "current"))
    read = _number(2**64 - 1)
    return Mitigations(**{key: read(f"{name}.{key}", bits) for key, bits in members.items()})


def _platform(name: str, value: object) -> Mapping[str, bool]:
    members = _object(name, value, _PLATFORM)
    return {key: _boolean(f"{name}.{key}", wanted) for key, wanted in members.items()}


def _numbers(name: str, value: object, count: int, form: str) -> tuple[int, ...]:
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != count or not all(re.fullmatch(r"0|[1-9][0-9]{0,2}", part) for part in parts):
        raise ExpectationError(f'{name} is a text like "{form}"')
    numbers = tuple(int(part) for part in parts)
    if max(numbers) > 0xFF:
        raise ExpectationError(f"{name}: each number is at most 255")
    return numbers


def _abi(name: str, value: object) -> AbiVersion:
    return AbiVersion(*_numbers(name, value, 2, "0.31"))


def _firmware(name: str, value: object) -> FirmwareVersion:
    return FirmwareVersion(*_numbers(name, value, 3, "1.55.0"))


_READERS: Final[dict[str, Callable[[str, object], object]]] = {
    "measurement": _hex_of(48),
    "host_data": _hex_of(32),
    "report_data": _hex_of(64),
    "family_id": _hex_of(16),
    "image_id": _hex_of(16),
    "chip_id": _hex_of(64, 8),
    "id_key_digests": _listed(_hex_of(48)),
    "author_key_digests": _listed(_hex_of(48)),
    "vmpl": _number(3),
    "guest_svn_min": _number(2**32 - 1),
    "version_min": _number(0xFFFF),
    "abi_min": _abi,
    "firmware_min": _firmware,
    "tcb_min": _tcb,
    "launch_tcb_min": _tcb,
    "mitigations": _mitigations,
    "allow_debug": _boolean,
    "allow_migration": _boolean,
    "allow_provisional": _boolean,
    "allow_zero_chip_id": _boolean,
    "allow_vlek": _boolean,
    "forbid_smt": _boolean,
    "require_single_socket": _boolean,
    "require_author_key": _boolean,
    "require_crl": _boolean,
    "platform": _platform,
}
