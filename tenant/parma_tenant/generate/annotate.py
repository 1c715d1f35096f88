"""Writes policies into manifests, and digests behind tags, by editing the text: comments and order stay.

A block mapping gets a line in front of its first key, a flow mapping (JSON too) a member behind its brace.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from parma_tenant.source.errors import SourceError
from parma_tenant.source.kubernetes import TEMPLATES

ANNOTATION: Final = "io.parma/policy"
LIMIT: Final = 256 << 10
"""Bytes of all annotations of an object together (Kubernetes apimachinery, TotalAnnotationSizeLimitB)."""
_MARGIN: Final = 4 << 10
_IMAGE_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Change:
    """What one workload gets."""

    policy: bytes
    pins: Mapping[str, str]
    """The image as it is written -> with its digest."""


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    text: str


def annotation_value(policy: bytes) -> str:
    """Base64 of the policy's gzip, the same bytes each time. Raises SourceError for one that no object can hold."""
    value = base64.b64encode(gzip.compress(policy, 9, mtime=0)).decode()
    if len(value) + _MARGIN > LIMIT:
        raise SourceError(
            f"the policy takes {len(value) >> 10} KiB of an annotation, and Kubernetes allows {LIMIT >> 10} in all: "
            'give it by the runtime handler\'s ConfigPath (`policy = "path"`), or move containers to a fragment'
        )
    return value


def size_note(policy: bytes) -> str | None:
    """What to say of a policy that `kubectl apply` cannot store, since it keeps a second copy."""
    size = len(base64.b64encode(gzip.compress(policy, 9, mtime=0)))
    if 2 * size + _MARGIN <= LIMIT:
        return None
    return (
        f"the policy takes {size >> 10} KiB of an annotation, `kubectl apply` stores it twice and Kubernetes allows "
        f"{LIMIT >> 10} KiB: use `kubectl apply --server-side` or `kubectl replace`, the handler's ConfigPath, "
        "or a fragment"
    )


def annotate(text: str, changes: Sequence[Change | None]) -> str:
    """`changes`, one for each workload in the text's order, None for those that stay. Raises SourceError."""
    edits: list[_Edit] = []
    found = [node for root in yaml.compose_all(text, _Loader) for node in _workloads(root)]
    for (kind, node), change in zip(found, changes, strict=True):
        if change is not None:
            edits += _edits(kind, node, change)
    done = text
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        # A block scalar ends behind its last line end, which has to stay.
        end = edit.start + len(done[edit.start : edit.end].rstrip())
        done = done[: edit.start] + edit.text + done[end:]
    return done


def _workloads(root: yaml.Node | None) -> Iterator[tuple[str, yaml.MappingNode]]:
    if not isinstance(root, yaml.MappingNode):
        return
    kind = _member(root, "kind")
    items = _member(root, "items")
    if isinstance(items, yaml.SequenceNode) and kind is not None and kind.value == "List":
        for item in items.value:
            yield from _workloads(item)
    elif kind is not None and kind.value in TEMPLATES:
        yield str(kind.value), root


def _member(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _edits(kind: str, node: yaml.MappingNode, change: Change) -> Iterator[_Edit]:
    template: yaml.Node | None = node
    for step in TEMPLATES[kind]:
        template = _member(template, step)
    if not isinstance(template, yaml.MappingNode):
        raise SourceError("the pod's template is no mapping")
    value = json.dumps(annotation_value(change.policy))
    yield _put(template, ["metadata", "annotations", ANNOTATION], value)
    spec = _member(template, "spec")
    for name in _IMAGE_LISTS:
        containers = _member(spec, name)
        for container in containers.value if isinstance(containers, yaml.SequenceNode) else ():
            image = _member(container, "image")
            if isinstance(image, yaml.ScalarNode) and image.value in change.pins:
                start, end = _span(image)
                yield _Edit(start, end, json.dumps(change.pins[str(image.value)]))


def _put(node: yaml.MappingNode, path: Sequence[str], value: str) -> _Edit:
    """The edit that makes the member at `path` be `value`."""
    key, rest = path[0], path[1:]
    member = _member(node, key)
    if isinstance(member, yaml.MappingNode) and rest:
        return _put(member, rest, value)
    if member is not None:
        start, end = _span(member)
        return _Edit(start, end, " " + _flow(rest, value) if start == end else _flow(rest, value))
    start, _ = _span(node)
    if node.flow_style:
        comma = ", " if node.value else ""
        return _Edit(start + 1, start + 1, f"{json.dumps(key)}: {_flow(rest, value)}{comma}")
    assert node.start_mark is not None
    column = node.start_mark.column
    return _Edit(start, start, _block(path, value, column) + " " * column)


def _flow(path: Sequence[str], value: str) -> str:
    for key in reversed(path):
        value = f"{{{json.dumps(key)}: {value}}}"
    return value


def _block(path: Sequence[str], value: str, column: int) -> str:
    """Lines without the first one's indentation."""
    lines = [f"{' ' * (column + 2 * depth)}{key}:" for depth, key in enumerate(path)]
    return "\n".join(lines).lstrip(" ") + f" {value}\n"


def _span(node: yaml.Node) -> tuple[int, int]:
    assert node.start_mark is not None
    assert node.end_mark is not None
    return node.start_mark.index, node.end_mark.index
