"""Plain form of host paths (policy.md, difference f): lexical, before any rule sees them."""

from __future__ import annotations

from collections.abc import Mapping

_PATH_MEMBERS = ("target", "unmountTarget")


def plain_path(text: str) -> str:
    """`text` without `.`, `..` and empty parts and without a trailing slash; what is no absolute path stays.

    `..` at the root stays at the root. Links are not looked at: what opens the path must not follow them.
    """
    if not text.startswith("/"):
        return text
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def plain_input(document: Mapping[str, object]) -> dict[str, object]:
    """The input document with `target`, `unmountTarget`, `layerPaths` and mount sources in plain form."""
    plain = dict(document)
    for member in _PATH_MEMBERS:
        value = plain.get(member)
        if isinstance(value, str):
            plain[member] = plain_path(value)
    layers = plain.get("layerPaths")
    if isinstance(layers, list | tuple):
        plain["layerPaths"] = [plain_path(p) if isinstance(p, str) else p for p in layers]
    mounts = plain.get("mounts")
    if isinstance(mounts, list | tuple):
        plain["mounts"] = [_plain_mount(mount) for mount in mounts]
    return plain


def _plain_mount(mount: object) -> object:
    if not isinstance(mount, Mapping):
        return mount
    source = mount.get("source")
    return {**mount, "source": plain_path(source)} if isinstance(source, str) else mount
