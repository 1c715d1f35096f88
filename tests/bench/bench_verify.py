"""What the verification of a report with its chain costs, over a bare ECDSA P-384 verify of the same report."""

from __future__ import annotations

import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from parma_api.snp.report import SIGNED_SIZE, parse
from parma_tenant.verify.intake import load_certificate
from parma_tenant.verify.judge import Evidence, verify

VECTORS = Path(__file__).resolve().parents[1] / "vectors/snp"
SETS = ("milan-v3", "genoa-v3", "turin-v5")
ROUNDS, WARM_UP = 200, 20


def _bare(data: bytes, leaf: bytes) -> Callable[[], object]:
    report, key = parse(data), load_certificate(leaf).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(part, "little") for part in (report.signature_r, report.signature_s))
    signature = encode_dss_signature(r, s)
    return lambda: key.verify(signature, data[:SIGNED_SIZE], ec.ECDSA(hashes.SHA384()))


def _milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e3


def _bounds(values: list[float]) -> tuple[float, float]:
    """95 % bounds of the median, from the order of the samples."""
    ordered, spread = sorted(values), 0.98 * len(values) ** 0.5
    middle = len(values) / 2
    return ordered[int(middle - spread)], ordered[int(middle + spread)]


def _row(name: str) -> dict[str, Any]:
    folder = VECTORS / name
    facts = json.loads((VECTORS / "facts.json").read_text())
    at = datetime.datetime.fromisoformat(facts[name]["verify_at"])
    data = (folder / "report.bin").read_bytes()
    files = ("vcek.pem", "ask.pem", "ark.pem")
    evidence = Evidence(data, tuple((folder / file).read_bytes() for file in files))
    bare = _bare(data, evidence.certificates[0])
    assert verify(evidence, at).verdict == "accept"
    taken, base = [], []
    for _ in range(WARM_UP + ROUNDS):
        taken.append(_milliseconds(lambda: verify(evidence, at)))
        base.append(_milliseconds(bare))
    del taken[:WARM_UP], base[:WARM_UP]
    middle, under = statistics.median(taken), statistics.median(base)
    (low, high), (base_low, base_high) = _bounds(taken), _bounds(base)
    return {
        "name": f"attest.verify.{name}",
        "value": round(middle, 3),
        "unit": "ms",
        "baseline": {"name": "ECDSA P-384 verify", "value": round(under, 3)},
        "ratio": round(middle / under, 3),
        "n": len(taken),
        "low": round(low / base_high, 3),
        "high": round(high / base_low, 3),
    }


def run() -> list[dict[str, Any]]:
    """Rows for `make bench`; verification must stay within 10 ms."""
    return [_row(name) for name in SETS]


if __name__ == "__main__":
    rows = run()
    for row in rows:
        print(f"{row['name']:30} {row['value']:7.3f} ms  {row['ratio']:6.2f} times a bare verify")
    sys.exit(any(row["value"] > 10 for row in rows))
