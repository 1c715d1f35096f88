"""YAML and JSON of a stranger as nodes that know their lines: aliases count as often as they are used.

Sources: YAML 1.2.2, section 7.1 (alias nodes); sigs.k8s.io/yaml for how Kubernetes reads scalars (YAML 1.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from parma_tenant.source.errors import SourceError

MAX_FILE: Final = 8 << 20
MAX_NODES: Final = 200_000
MAX_DEPTH: Final = 64
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_SCALARS: Final = yaml.constructor.SafeConstructor()


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line where it stands (from 1; 0 where it is not known)."""

    value: bool | int | float | str | list[Node] | dict[str, Node] | None
    line: int = 0

    def plain(self) -> Any:
        """The value as JSON has it."""
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return self.value


def read_documents(data: bytes, name: str) -> list[Node]:
    """The documents of a file, empty ones left out. Raises SourceError."""
    if len(data) > MAX_FILE:
        raise SourceError(f"{name} is larger than {MAX_FILE >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error
    if text.lstrip()[:1] in ("{", "["):
        found = _json(text, name)
        if found is not None:
            return [found]
    return [node for node in _yaml(text, name) if node.value is not None]


def _json(text: str, name: str) -> Node | None:
    """None for what is no JSON (it may be YAML in flow style)."""
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, name))
    except RecursionError as error:
        raise SourceError(f"{name}: too deep a nest") from error
    except ValueError:
        return None
    return _Builder(name).of_json(document, 0)


def _unique(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise SourceError(f"{name}: a key stands twice in one object")
    return found


def _yaml(text: str, name: str) -> Iterator[Node]:
    try:
        _check_depth(text, name)
        builder = _Builder(name)
        for root in yaml.compose_all(text, _Loader):
            yield builder.of_yaml(root, 0)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SourceError(f"{name}:{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise SourceError(f"{name}: {' '.join(str(error).split())[:200]}") from error


def _check_depth(text: str, name: str) -> None:
    """Before anything recurses over it."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, _Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > 3 * MAX_NODES:
            raise SourceError(f"{name}: too deep or too large a document")


class _Builder:
    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def _counted(self, depth: int, line: int) -> None:
        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            raise SourceError(
                f"{self._name}:{line}: the document unfolds to more than {MAX_NODES} values or "
                f"{MAX_DEPTH} levels (aliases are counted each time)"
            )

    def of_json(self, value: Any, depth: int) -> Node:
        self._counted(depth, 0)
        if isinstance(value, list):
            return Node([self.of_json(element, depth + 1) for element in value])
        if isinstance(value, dict):
            return Node({key: self.of_json(member, depth + 1) for key, member in value.items()})
        return Node(value)

    def of_yaml(self, node: yaml.Node, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._counted(depth, line)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.of_yaml(element, depth + 1) for element in node.value], line)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, depth), line)
        assert isinstance(node, yaml.ScalarNode)
        return Node(self._scalar(node, line), line)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == f"{_TAG}merge":
                for key, value in self._merged(value_node, depth).items():
                    merged.setdefault(key, value)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise SourceError(f"{self._name}:{line}: a key that is no text")
            if key_node.value in found:
                raise SourceError(f"{self._name}:{line}: {key_node.value[:80]!r} stands twice")
            found[key_node.value] = self.of_yaml(value_node, depth + 1)
        return merged | found

    def _merged(self, node: yaml.Node, depth: int) -> Mapping[str, Node]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Node] = {}
        for part in parts:
            found = self.of_yaml(part, depth + 1)
            if not isinstance(found.value, dict):
                raise SourceError(f"{self._name}:{found.line}: only mappings can be merged")
            for key, value in found.value.items():
                merged.setdefault(key, value)
        return merged

    def _scalar(self, node: yaml.ScalarNode, line: int) -> bool | int | float | str | None:
        kind = node.tag.removeprefix(_TAG)
        text = str(node.value)
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return bool(_SCALARS.construct_yaml_bool(node))
            if kind == "int":
                return int(_SCALARS.construct_yaml_int(node))
            if kind == "float":
                return float(_SCALARS.construct_yaml_float(node))
        except (ValueError, KeyError, OverflowError) as error:
            raise SourceError(f"{self._name}:{line}: {text[:80]!r} is no {kind}") from error
        if kind in ("str", "timestamp", "value"):
            return text
        raise SourceError(f"{self._name}:{line}: the tag {node.tag[:80]!r} is not known here")
