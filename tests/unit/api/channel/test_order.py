"""Turns among streams: nobody starves, and calls hardly wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.channel.order import CONTROL, SendOrder


def always(order: SendOrder, turns: int) -> list[int]:
    """Who goes, when everybody wants again at once."""
    gone = []
    for _ in range(turns):
        gone.append(order.next())
        order.add(gone[-1])
    return gone


def test_streams_take_turns() -> None:
    order = SendOrder()
    for stream in (5, 1, 3, 1):
        order.add(stream)
    assert always(order, 6) == [5, 1, 3, 5, 1, 3]


def test_calls_have_every_second_turn() -> None:
    order = SendOrder()
    for stream in (1, 3, CONTROL):
        order.add(stream)
    assert always(order, 6) == [CONTROL, 1, CONTROL, 3, CONTROL, 1]


def test_who_is_taken_out_has_no_turn() -> None:
    order = SendOrder()
    order.add(1)
    order.add(3)
    order.discard(1)
    order.discard(7)
    assert order.next() == 3
    assert not order
    with pytest.raises(IndexError):
        order.next()


@given(st.lists(st.integers(0, 9), min_size=1))
def test_each_goes_once_however_often_it_asked(streams: list[int]) -> None:
    order = SendOrder()
    for stream in streams:
        order.add(stream)
    gone = []
    while order:
        gone.append(order.next())
    assert sorted(gone) == sorted(set(streams))


@given(st.sets(st.integers(1, 9), min_size=1))
def test_nobody_waits_longer_than_twice_the_number_of_streams(streams: set[int]) -> None:
    order = SendOrder()
    for stream in (CONTROL, *streams):
        order.add(stream)
    gone = always(order, 2 * len(streams))
    assert streams <= set(gone)
