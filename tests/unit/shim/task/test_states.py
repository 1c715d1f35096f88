"""The table of states is whole, and its refusals are the ones that containerd's clients look for."""

from __future__ import annotations

import pytest

from parma_api.status import ApiError, Code
from parma_shim.task.states import TABLE, Action, Kind, Status, after


def test_every_status_has_an_answer() -> None:
    for outcomes in TABLE.values():
        assert outcomes.keys() == set(Status)


@pytest.mark.parametrize(
    ("kind", "action", "status", "code", "text"),
    [
        (Kind.INIT, Action.START, Status.RUNNING, Code.UNKNOWN, "cannot start a running process"),
        (
            Kind.INIT,
            Action.DELETE,
            Status.RUNNING,
            Code.FAILED_PRECONDITION,
            "cannot delete a running process: failed precondition",
        ),
        (
            Kind.INIT,
            Action.KILL,
            Status.STOPPED,
            Code.NOT_FOUND,
            "process already finished: not found",
        ),
        (
            Kind.EXEC,
            Action.KILL,
            Status.STOPPED,
            Code.NOT_FOUND,
            "process already finished: not found",
        ),
        (
            Kind.EXEC,
            Action.KILL,
            Status.CREATED,
            Code.FAILED_PRECONDITION,
            "cannot kill a created exec: failed precondition",
        ),
        (
            Kind.INIT,
            Action.UPDATE,
            Status.STOPPED,
            Code.NOT_FOUND,
            "process already finished: not found",
        ),
    ],
)
def test_refusals(kind: Kind, action: Action, status: Status, code: Code, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        after(kind, action, status)
    assert (caught.value.code, caught.value.message) == (code, text)


def test_no_text_ends_in_what_containerd_2_reads_otherwise() -> None:
    texts = [
        refusal(kind, action, status)
        for (kind, action), outcomes in TABLE.items()
        for status in outcomes
    ]
    assert any(texts)
    assert not [text for text in texts if text.endswith((": conflict", ": not modified"))]


def refusal(kind: Kind, action: Action, status: Status) -> str:
    try:
        after(kind, action, status)
    except ApiError as error:
        return error.message
    return ""
