"""A real OPA, the framework's folder, and a loader as the agent's. A missing OPA fails the tests, it skips none."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from parma_api.policy.gate import Gate
from parma_api.policy.opa import OpaLoader
from parma_api.policy.sidecar import find_opa

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def opa() -> Path:
    return find_opa()


@pytest.fixture(scope="session")
def bundle_dir() -> Path:
    return ROOT / "policy_bundles"


@pytest.fixture(scope="session")
def vectors() -> Path:
    return ROOT / "tests" / "vectors" / "policy"


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Short, because it holds sockets."""
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        yield Path(name)


@pytest.fixture
def make_loader(opa: Path, bundle_dir: Path, run_dir: Path) -> Callable[..., OpaLoader]:
    def make(**options: object) -> OpaLoader:
        return OpaLoader(opa, bundle_dir, run_dir, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
async def gate(make_loader: Callable[..., OpaLoader]) -> AsyncIterator[Gate]:
    opened = Gate(make_loader())
    yield opened
    await opened.close()


@pytest.fixture
def set_policy(gate: Gate) -> Callable[[bytes | str], object]:
    async def apply(text: bytes | str) -> None:
        encoded = text.encode() if isinstance(text, str) else text
        await gate.set_policy(encoded, hashlib.sha256(encoded).digest())

    return apply


@pytest.fixture
def soon() -> Callable[..., float]:
    def at(seconds: float = 30.0) -> float:
        return asyncio.get_running_loop().time() + seconds

    return at
