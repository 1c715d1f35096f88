"""Modules for a container that may administer the pod's network, and for no other."""

from __future__ import annotations

import logging

import pytest

from parma_api.policy.decision import Capabilities
from parma_guest.agent import net_admin

PLAIN = Capabilities(("CAP_CHOWN",), ("CAP_CHOWN",), (), ("CAP_CHOWN",), ())
ADMIN = Capabilities(("CAP_CHOWN", "CAP_NET_ADMIN"), (), (), (), ())


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    groups: list[tuple[str, ...]] = []
    monkeypatch.setattr(net_admin, "load_groups", groups.append)
    return groups


async def test_loaded_for_an_administrator(loaded: list[tuple[str, ...]]) -> None:
    await net_admin.prepare(ADMIN)
    assert loaded == [("bridge",)]


async def test_not_for_others(loaded: list[tuple[str, ...]]) -> None:
    await net_admin.prepare(PLAIN)
    assert loaded == []


async def test_an_image_without_them_runs_the_container_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        await net_admin.prepare(ADMIN)
    assert "no bridges in the pod" in caplog.text
