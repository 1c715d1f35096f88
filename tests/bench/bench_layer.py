"""Conversion of a 256 MiB layer against sha256sum over the same tar, and its peak memory."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.bench.row import Limit, Row, Rows, in_turns, row

MIB: Final = 1 << 20
SIZE: Final = 256 * MIB
ENTRIES: Final = 4096
ROUNDS: Final = 5
_CONVERT: Final = """
import resource, sys
from pathlib import Path
from parma_api.layer.convert import convert
with open(sys.argv[1], "rb") as source:
    convert(source, Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_tar(path: Path) -> None:
    """As an image has them: most entries small, most bytes in few files."""
    draw = random.Random(7)
    large = draw.randbytes(MIB)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(ENTRIES):
            size = 4 * MIB if number % 80 == 0 else draw.randrange(0, 24 << 10)
            info = tarfile.TarInfo(f"usr/lib/d{number % 64}/f{number}")
            info.size = size
            archive.addfile(info, io.BytesIO((large * (size // MIB + 1))[:size]))


def run() -> Rows:
    """Rows for `make bench`."""
    peaks: list[int] = []
    with tempfile.TemporaryDirectory(prefix="pb-") as name:
        source, target = Path(name) / "layer.tar", Path(name) / "layer.img"
        write_tar(source)

        def convert() -> None:
            command = [sys.executable, "-c", _CONVERT, str(source), str(target)]
            peaks.append(int(subprocess.check_output(command)))

        def digest() -> None:
            subprocess.run(["sha256sum", str(source)], check=True, stdout=subprocess.DEVNULL)

        taken, base = in_turns(ROUNDS, convert, digest)
        size = source.stat().st_size / MIB
    allowed = 64 + ENTRIES / 1024
    peak = max(peaks) / 1024
    return [
        row(f"layer.convert.{size:.0f}MiB", "s", taken, "sha256sum", base, Limit(4)),
        Row(
            "layer.convert.peak_memory",
            peak,
            "MiB",
            "64 MiB + 1 KiB an entry",
            allowed,
            len(peaks),
            peak / allowed,
            min(peaks) / 1024 / allowed,
            peak / allowed,
            Limit(1),
        ),
    ]
