"""What containerd writes to `start`'s standard input: nothing, an options Any, or BootstrapParams (2.3 and newer).

    Any{type_url=1, value=2}
    BootstrapParams{instance_id=1, namespace=2, ..., extensions=8 repeated {value=1 Any}}

An Any can decode as BootstrapParams: it counts as such only if id and namespace are the command line's.
"""

from __future__ import annotations

from typing import NamedTuple

from parma_shim.errors import UsageError
from parma_shim.lifecycle.protowire import last_bytes, last_text, read_fields

RUNC_OPTIONS = "containerd.runc.v1.Options"
RUNTIME_OPTIONS = "runtimeoptions.v1.Options"
_SHIM_CGROUP = 3
"""Field of containerd.runc.v1.Options."""


class Bootstrap(NamedTuple):
    """What `start` needs of it; the rest of the options comes again with Create."""

    shim_cgroup: str = ""
    is_params: bool = False


def parse_bootstrap(data: bytes, container_id: str, namespace: str) -> Bootstrap:
    """Raises UsageError for bytes that are neither."""
    if not data:
        return Bootstrap()
    fields = read_fields(data)
    if _is_params(fields, container_id, namespace):
        cgroup = ""
        for extension in fields.get(8, ()):
            if isinstance(extension, bytes):
                any_bytes = last_bytes(read_fields(extension), 1)
                cgroup = _shim_cgroup(any_bytes) or cgroup
        return Bootstrap(cgroup, is_params=True)
    return Bootstrap(_shim_cgroup(data))


def _is_params(fields: dict[int, list[int | bytes]], container_id: str, namespace: str) -> bool:
    try:
        return last_text(fields, 1) == container_id and last_text(fields, 2) == namespace
    except UsageError:
        return False


def _shim_cgroup(any_bytes: bytes) -> str:
    fields = read_fields(any_bytes)
    type_url = last_text(fields, 1)
    value = last_bytes(fields, 2)
    if type_url == RUNC_OPTIONS:
        return last_text(read_fields(value), _SHIM_CGROUP)
    if type_url == RUNTIME_OPTIONS:
        return _toml_cgroup(last_bytes(read_fields(value), 3))
    return ""


def _toml_cgroup(body: bytes) -> str:
    if b"ShimCgroup" not in body:
        return ""
    import tomllib

    try:
        value = tomllib.loads(body.decode()).get("ShimCgroup", "")
    except ValueError as error:
        raise UsageError("the runtime options are not TOML") from error
    return value if isinstance(value, str) else ""
