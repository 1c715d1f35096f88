"""Stub processors: one launch under the good policy, one under a policy with a byte changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.tenant.stub import POLICY, StubPsp, stub_psp


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority")


@pytest.fixture(scope="session")
def psp(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubPsp]:
    with stub_psp(tmp_path_factory.mktemp("psp"), authority) as launched:
        yield launched


@pytest.fixture(scope="session")
def other_psp(
    psp: StubPsp, authority: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StubPsp]:
    changed = bytearray(POLICY)
    changed[20] ^= 1
    digest = hashlib.sha256(changed).digest()
    with stub_psp(tmp_path_factory.mktemp("other"), authority, digest) as launched:
        yield launched
