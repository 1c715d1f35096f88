"""Where the utility VM's image is found; what it holds is read by `parma_api.launch`, for the tenant too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from parma_api.launch import MeasuredFile, UvmImage, Variant, read_image
from parma_api.status import FailedPreconditionError

__all__ = ["MeasuredFile", "UvmImage", "Variant", "candidates", "find_image", "read_image"]

SYSTEM_IMAGES = Path("/usr/share/parma/uvm")


def candidates(environment: Mapping[str, str], variant: Variant) -> tuple[Path, ...]:
    """Directories that are looked at, in order. PARMA_UVM alone counts where it is set."""
    if named := environment.get("PARMA_UVM"):
        return (Path(named),)
    cache = environment.get("PARMA_CACHE")
    home = environment.get("HOME")
    places = []
    if cache:
        places.append(Path(cache) / "uvm" / variant / "current")
    elif home:
        places.append(Path(home) / ".cache/parma/uvm" / variant / "current")
    return (*places, SYSTEM_IMAGES / variant)


def find_image(environment: Mapping[str, str], variant: Variant) -> UvmImage:
    """The first image there is. Raises as `read_image`; FailedPreconditionError when there is none."""
    places = candidates(environment, variant)
    for place in places:
        if (place / "image.json").exists():
            # `current` is a link that a new build turns elsewhere: keep to what it means now.
            return read_image(place.resolve())
    looked = ", ".join(str(place) for place in places)
    raise FailedPreconditionError(
        f"no UVM image ({variant}) in {looked}: build one with `make uvm`, or set PARMA_UVM to its directory"
    )
