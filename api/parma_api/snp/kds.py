"""AMD's key distribution service: where the certificates of a report are (AMD 57230). Nothing is fetched here."""

from __future__ import annotations

from typing import Final

from parma_api.snp.bits import SigningKey
from parma_api.snp.product import ProductLine
from parma_api.snp.tcb import Tcb
from parma_api.status import InvalidArgumentError

HOST: Final = "https://kdsintf.amd.com"
_QUERY: Final = {
    "fmc": "fmcSPL",
    "bootloader": "blSPL",
    "tee": "teeSPL",
    "snp": "snpSPL",
    "microcode": "ucodeSPL",
}
_KINDS: Final = {SigningKey.VCEK: "vcek", SigningKey.VLEK: "vlek"}


def vcek_path(line: ProductLine, chip_id: bytes, tcb: Tcb) -> str:
    """The path and query of the VCEK for this chip at this TCB; levels are decimal.

    Raises InvalidArgumentError for a masked chip id, a TCB of another layout, or an id with more bytes than the line's.
    """
    size = line.chip_id_size
    if len(chip_id) != 64 or not any(chip_id) or any(chip_id[size:]):
        raise InvalidArgumentError(f"the chip id is masked, or none of {line}")
    if tcb.layout is not line.tcb_layout:
        raise InvalidArgumentError(f"the TCB has not the layout of {line}")
    levels = tcb.components()
    query = "&".join(f"{name}={levels[key]}" for key, name in _QUERY.items() if key in levels)
    return f"/vcek/v1/{line}/{chip_id[:size].hex()}?{query}"


def chain_path(line: ProductLine, signer: SigningKey = SigningKey.VCEK) -> str:
    """The path of the authorities, PEM: ASK or ASVK, then ARK."""
    return f"/{_kind(signer)}/v1/{line}/cert_chain"


def crl_path(line: ProductLine, signer: SigningKey = SigningKey.VCEK) -> str:
    """The path of the revocation list, DER."""
    return f"/{_kind(signer)}/v1/{line}/crl"


def _kind(signer: SigningKey) -> str:
    if signer not in _KINDS:
        raise InvalidArgumentError("only VCEK and VLEK have certificates")
    return _KINDS[signer]
