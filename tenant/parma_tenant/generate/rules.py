"""Whether written rules admit something, as near to RE2 as Python's expressions are: for remarks, not for verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def fits(pattern: object, strategy: object, text: str) -> bool:
    """One pattern, by string, re2 or any other strategy (which fits nothing)."""
    if not isinstance(pattern, str):
        return False
    if strategy == "string":
        return pattern == text
    if strategy != "re2":
        return False
    try:
        return re.fullmatch(_python(pattern), text) is not None
    except re.error:
        return False


def _python(pattern: str) -> str:
    """RE2 allows flags for the rest of a group anywhere; Python wants them around what they are for."""
    return re.sub(r"\(\(\?([a-z]+)\)([^()]*)\)", r"(?\1:\2)", pattern).replace(r"\z", r"\Z")


def env_admitted(rules: Iterable[Mapping[str, Any]], text: str) -> bool:
    """Whether some rule admits the variable `NAME=value`."""
    return any(_env_fits(rule, text) for rule in rules)


def _env_fits(rule: Mapping[str, Any], text: str) -> bool:
    if fits(rule.get("pattern"), rule.get("strategy"), text):
        return True
    name, equals, value = text.partition("=")
    named = fits(rule.get("name"), rule.get("name_strategy"), name)
    return bool(equals) and named and fits(rule.get("value"), rule.get("value_strategy"), value)


def name_admitted(rules: Iterable[Mapping[str, Any]], name: str) -> bool:
    """Whether some rule can admit a variable of that name, whatever its value."""
    for rule in rules:
        pattern = str(rule.get("pattern") or "")
        if pattern.partition("=")[0].replace("\\", "") == name or fits(
            pattern, rule.get("strategy"), f"{name}=x"
        ):
            return True
        if fits(rule.get("name"), rule.get("name_strategy"), name):
            return True
    return False


def mount_admitted(rules: Iterable[Mapping[str, Any]], mount: Mapping[str, Any]) -> bool:
    """Whether some rule admits a mount whose source is a real path beneath `.../sandboxMounts`, or `sandbox://`."""
    return any(
        rule.get("destination") == mount.get("destination")
        and rule.get("type") == mount.get("type")
        and sorted(map(str, rule.get("options") or ()))
        == sorted(map(str, mount.get("options") or ()))
        and _source_fits(str(rule.get("source") or ""), str(mount.get("source") or ""))
        for rule in rules
    )


def _source_fits(rule: str, source: str) -> bool:
    if not rule.startswith("sandbox://"):
        return rule == source
    inner = source.removeprefix("sandbox://")
    if "/sandboxMounts/" in source:
        inner = "/" + source.split("/sandboxMounts/", 1)[1]
    return fits(rule.removeprefix("sandbox://"), "re2", inner)
