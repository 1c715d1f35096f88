"""`parma measure`: what a report's MEASUREMENT must be for a UVM image."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from parma_api.status import FailedPreconditionError, InvalidArgumentError

if TYPE_CHECKING:
    from parma_tenant.verify.measurement import Explanation, Inputs

_PLACES: Final = (
    Path("/usr/share/parma/ovmf/OVMF.amdsev.fd"),
    Path("/usr/share/ovmf/OVMF.amdsev.fd"),
)
_IN_CACHE: Final = "ovmf-amdsev/*/usr/share/ovmf/OVMF.amdsev.fd"
_MAX_COUNTS: Final = 64


@click.command()
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    required=True,
    help="The UVM image: a folder with image.json.",
)
@click.option("--vcpus", default="1,2,4", show_default=True, help="Counts of vCPUs.")
@click.option(
    "--ovmf",
    type=click.Path(path_type=Path),
    help="The firmware, AmdSev build [default: $PARMA_OVMF, else the installed one].",
)
@click.option("--cpu", metavar="MODEL", help="QEMU's CPU model [default: the shim's].")
@click.option("--features", metavar="0x1", help="SEV_FEATURES [default: the shim's].")
@click.option("--claim", metavar="HEX", help="A measurement to explain: which input differs?")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def measure(
    *,
    image: Path,
    vcpus: str,
    ovmf: Path | None,
    cpu: str | None,
    features: str | None,
    claim: str | None,
    as_json: bool,
) -> None:
    """Compute the launch measurement of a UVM image, for each count of vCPUs.

    From the same configuration as the shim's. With --claim: exit 0 if the value is one of them, 1 if it is not.

    Example: parma measure --image /usr/share/parma/uvm/release --vcpus 1,2,4 --json
    """
    from parma_tenant.verify.measurement import explain, read_inputs

    counts = _counts(vcpus)
    bits = None if features is None else _features(features)
    claimed = None if claim is None else _claim(claim)
    inputs = read_inputs(image, ovmf or find_ovmf(), cpu, bits)
    digests = {count: inputs.digest(count).hex() for count in counts}
    explanation = None if claimed is None else explain(claimed, inputs, counts)
    if as_json:
        click.echo(json.dumps(_document(digests, inputs, claim, explanation)))
    else:
        _show(digests, inputs, explanation)
    click.get_current_context().exit(0 if explanation is None or is_equal(explanation) else 1)


def is_equal(explanation: Explanation) -> bool:
    """Whether the claim is one of the measurements."""
    return explanation.vcpus is not None and not explanation.differences


def find_ovmf() -> Path:
    """$PARMA_OVMF, else the installed firmware, else the one in the cache. Raises FailedPreconditionError."""
    if named := os.environ.get("PARMA_OVMF"):
        return Path(named)
    cache = Path(os.environ.get("PARMA_CACHE") or Path.home() / ".cache/parma")
    for place in (*_PLACES, *sorted(cache.glob(_IN_CACHE))):
        if place.is_file():
            return place
    raise FailedPreconditionError(
        "no AmdSev firmware is installed: give the file of Debian's package ovmf-amdsev with --ovmf or PARMA_OVMF"
    )


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(re.fullmatch(r"[1-9][0-9]{0,2}", part) for part in parts):
        raise InvalidArgumentError(f"--vcpus {text!r} is not a list of counts like 1,2,4")
    counts = tuple(dict.fromkeys(int(part) for part in parts))
    if len(counts) > _MAX_COUNTS or max(counts) > 512:
        raise InvalidArgumentError(f"--vcpus: at most {_MAX_COUNTS} counts, each at most 512")
    return counts


def _features(text: str) -> int:
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,19}", text):
        raise InvalidArgumentError(f"--features {text!r} is not a number like 0x1")
    return int(text, 0)


def _claim(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{96}", text):
        raise InvalidArgumentError("--claim is a measurement: 96 hexadecimal digits")
    return bytes.fromhex(text)


def _document(
    digests: dict[int, str], inputs: Inputs, claim: str | None, explanation: Explanation | None
) -> dict[str, object]:
    document: dict[str, object] = {
        "measurements": {str(count): digest for count, digest in digests.items()},
        "inputs": inputs.to_json() | {"vcpus": list(digests)},
    }
    if explanation is not None:
        document["claim"] = {
            "measurement": claim,
            "equal": is_equal(explanation),
            "vcpus": explanation.vcpus,
            "differences": [
                {"input": d.input, "ours": d.ours, "claimed": d.claimed}
                for d in explanation.differences
            ],
            "reason": explanation.reason,
        }
    return document


def _show(digests: dict[int, str], inputs: Inputs, explanation: Explanation | None) -> None:
    for count, digest in digests.items():
        click.echo(f"{count:3} vCPU  {digest}")
    for name, value in inputs.to_json().items():
        shown = f"{value['sha256']}  {value['path']}" if isinstance(value, dict) else value
        click.echo(f"  {name:14} {shown}")
    if explanation is not None:
        click.echo(f"claim: {explanation.reason}")
