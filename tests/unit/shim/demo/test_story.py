"""What the demo shows of crictl's errors."""

from __future__ import annotations

from parma_shim.demo.story import readable

ESCAPED = (
    'time="x" level=fatal msg="starting: rpc error: create_container denied by policy: process.env\\n'
    'a variable fits no rule\\nexplain: parma policy explain F: unknown"'
)


def test_a_denial_is_one_line_with_its_reason() -> None:
    wanted = "create_container denied by policy: process.env; a variable fits no rule"
    assert readable(ESCAPED) == wanted
    assert readable(ESCAPED.replace("\\n", "\n\t")) == wanted


def test_another_error_is_its_first_line() -> None:
    assert readable("pod not found\nmore") == "pod not found"
