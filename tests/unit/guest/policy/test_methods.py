"""Every call is gated, or named with a reason; nothing else starts."""

from __future__ import annotations

from typing import Any

import pytest

from parma_api.gen.parma.agent.v1 import AgentBase
from parma_api.policy.points import Point
from parma_guest.agent.front import handler_name, offered
from parma_guest.agent.service import AgentService
from parma_guest.policy.interceptor import Interceptor
from parma_guest.policy.methods import (
    GATED,
    UNGATED,
    UNGATED_CHANGES,
    WITHOUT_POLICY,
    Turn,
    check_complete,
)
from parma_guest.policy.prepare import PREPARERS


def test_the_maps_cover_the_service() -> None:
    assert len(offered()) == 27
    check_complete(offered())


def test_a_method_in_neither_map_does_not_start() -> None:
    with pytest.raises(ValueError, match="NewCall"):
        check_complete([*offered(), "NewCall"])


def test_a_method_in_both_maps_does_not_start() -> None:
    with pytest.raises(ValueError, match=r"at once.*Stats"):
        check_complete(offered(), ungated={**UNGATED, "Stats": "because"})


def test_a_row_without_a_method_does_not_start() -> None:
    with pytest.raises(ValueError, match="no method"):
        check_complete(offered(), gated={**GATED, "Old": GATED["Stats"]})


def test_a_gated_method_without_an_input_builder_does_not_start() -> None:
    gate: Any = None
    envelopes: Any = None
    group: Any = None
    less = {name: made for name, made in PREPARERS.items() if name != "Stats"}
    with pytest.raises(ValueError, match="Stats"):
        Interceptor(gate, envelopes, group, offered(), less)


def test_each_ungated_method_says_why() -> None:
    assert all(len(reason.split()) >= 4 for reason in UNGATED.values())
    assert UNGATED.keys() >= UNGATED_CHANGES
    assert UNGATED.keys() >= WITHOUT_POLICY


def test_every_verb_and_its_inverse_are_gated() -> None:
    """K13: taking down is judged as setting up is."""
    for what in ("Scratch", "Layer", "Overlay"):
        assert {f"Mount{what}", f"Unmount{what}"} <= GATED.keys()
    points = {point for row in GATED.values() for point in row.points}
    assert {
        Point.MOUNT_DEVICE,
        Point.UNMOUNT_DEVICE,
        Point.RW_MOUNT_DEVICE,
        Point.RW_UNMOUNT_DEVICE,
        Point.SCRATCH_MOUNT,
        Point.SCRATCH_UNMOUNT,
        Point.MOUNT_OVERLAY,
        Point.UNMOUNT_OVERLAY,
    } <= points


def test_no_call_reads_files_out() -> None:
    """K10."""
    assert not [name for name in offered() if "File" in name and name != "PutFiles"]


def test_queries_change_nothing_by_name() -> None:
    queries = {name for name, row in GATED.items() if row.turn is Turn.QUERY}
    assert queries == {"Stats", "ListProcesses", "DumpStacks", "ForwardPort"}


def test_the_service_has_every_handler() -> None:
    for method in offered():
        name = handler_name(method)
        assert getattr(AgentService, name) is not getattr(AgentBase, name)
