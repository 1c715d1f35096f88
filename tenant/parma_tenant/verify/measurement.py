"""What a UVM image must be measured as, from the configuration by which the shim launches it; why a claim differs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from parma_api.launch import SnpLaunch, VmSize, read_image, snp_launch
from parma_api.snp.measure.digest import Vcpus, by_count, launch_digest, memory_digest
from parma_api.snp.measure.firmware import Firmware, parse_firmware
from parma_api.snp.measure.kernel_hashes import EMPTY, KernelHashes
from parma_api.snp.measure.vmsa import SIGNATURES, signature_of
from parma_api.status import FailedPreconditionError

_MAX_COUNT: Final = 64
"""vCPUs up to which a claim is explained."""
_BITS: Final = range(1, 10)
FEATURES: Final = (0x1, 0x21, 0x0, *(0x1 | 1 << bit for bit in _BITS if bit != 5))
"""SEV_FEATURES that hosts are known to set, the likely ones first; then SNPActive with one more bit."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that enters the digest, read and checked against image.json."""

    launch: SnpLaunch
    firmware: Firmware
    hashes: KernelHashes

    def digest(self, count: int) -> bytes:
        """The launch measurement with this many vCPUs, 48 bytes."""
        signature = signature_of(self.launch.cpu_model)
        vcpus = Vcpus(count, signature, self.launch.guest_features)
        return launch_digest(self.firmware, self.hashes, vcpus)

    def to_json(self) -> dict[str, object]:
        """The inputs by name: files with their digests, the rest as it is."""
        launch = self.launch
        files = {"ovmf": launch.firmware, "kernel": launch.kernel, "initrd": launch.initrd}
        shown: dict[str, object] = {
            name: {"path": str(file.path), "sha256": file.sha256, "size": file.size}
            for name, file in files.items()
        }
        return shown | {
            "cmdline": launch.cmdline,
            "cpu": launch.cpu_model,
            "cpu_signature": f"0x{signature_of(launch.cpu_model):x}",
            "features": f"0x{launch.guest_features:x}",
            "vmm": "QEMU",
        }


def read_inputs(
    image: Path, ovmf: Path, cpu_model: str | None = None, features: int | None = None
) -> Inputs:
    """The inputs of a launch of the image in this folder; model and features are the shim's unless given.

    Raises FailedPreconditionError (a file is missing), DataLossError (it is not as image.json says),
    InvalidArgumentError (image.json or the firmware is malformed, or the model unknown).
    """
    launch = snp_launch(read_image(image), ovmf, VmSize.SMALL)
    if cpu_model is not None:
        launch = replace(launch, cpu_model=cpu_model)
    if features is not None:
        launch = replace(launch, guest_features=features)
    signature_of(launch.cpu_model)
    launch.kernel.verify()
    launch.initrd.verify()
    try:
        firmware = parse_firmware(ovmf.read_bytes())
    except OSError as error:
        raise FailedPreconditionError(f"{ovmf} cannot be read: {error.strerror}") from error
    kernel, initrd = bytes.fromhex(launch.kernel.sha256), bytes.fromhex(launch.initrd.sha256)
    return Inputs(launch, firmware, KernelHashes(kernel, initrd, launch.cmdline))


@dataclass(frozen=True, slots=True)
class Difference:
    """An input that would have to be another for the claim to come out."""

    input: str
    ours: str
    claimed: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of a claimed measurement: equal to ours with so many vCPUs, or what differs; neither if nothing explains it."""

    vcpus: int | None
    differences: tuple[Difference, ...]

    @property
    def reason(self) -> str:
        """One line."""
        if self.vcpus is not None and not self.differences:
            return f"equal, with {self.vcpus} vCPUs"
        if not self.differences:
            return (
                "the firmware, the kernel, the initrd or the command line differs:"
                " no count or model of vCPUs and no known features explain it"
            )
        parts = (f"{d.input} is {d.claimed}, not {d.ours}" for d in self.differences)
        return "; ".join(parts)


def explain(claimed: bytes, inputs: Inputs, counts: Sequence[int]) -> Explanation:
    """Which of our inputs would have to differ for `claimed`: the fewest. Counts are those that are expected."""
    found = sorted(
        (explanation for explanation in _search(claimed, inputs, counts)),
        key=lambda explanation: len(explanation.differences),
    )
    return found[0] if found else Explanation(None, ())


def _search(claimed: bytes, inputs: Inputs, counts: Sequence[int]) -> Iterator[Explanation]:
    launch = inputs.launch
    own = signature_of(launch.cpu_model)
    models = {own: launch.cpu_model}
    for model, signature in SIGNATURES.items():
        models.setdefault(signature, model)
    features = dict.fromkeys((launch.guest_features, *FEATURES))
    most = max(_MAX_COUNT, *counts)
    for kernel, hashes in _kernels(inputs).items():
        memory = memory_digest(inputs.firmware, hashes)
        for (signature, model), bits in itertools.product(models.items(), features):
            digests = by_count(memory, inputs.firmware, Vcpus(most, signature, bits))
            for count, digest in enumerate(digests, 1):
                if digest == claimed:
                    counted = ", ".join(map(str, counts))
                    pairs = (
                        ("the kernel's measurement", "of this image", kernel),
                        ("the CPU model", launch.cpu_model, model),
                        ("features", f"0x{launch.guest_features:x}", f"0x{bits:x}"),
                        ("the count of vCPUs", counted, counted if count in counts else str(count)),
                    )
                    differences = (Difference(*pair) for pair in pairs if pair[1] != pair[2])
                    yield Explanation(count, tuple(differences))


def _kernels(inputs: Inputs) -> Mapping[str, KernelHashes | None]:
    """What of the kernel may have been left out of the launch."""
    own = inputs.hashes
    return {
        "of this image": own,
        "left out (kernel-hashes=off)": None,
        "without an initrd": replace(own, initrd=EMPTY),
        "with an empty command line": replace(own, cmdline=""),
        "with neither initrd nor command line": replace(own, initrd=EMPTY, cmdline=""),
    }
