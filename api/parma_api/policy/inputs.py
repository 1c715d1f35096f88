"""The form of each point's input document (policy.md, section 6), checked before the policy is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from parma_api.policy.defaults import SETS
from parma_api.policy.points import Point

MAX_INPUT_BYTES: Final = 1 << 20


class InputError(Exception):
    """The document is not one that the point has; the text names the member."""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _is_int_or_null(value: object) -> bool:
    return value is None or _is_int(value)


def _is_user(value: object) -> bool:
    return _is_record(value, {"id": _is_text, "name": _is_text})


def _is_record(value: object, members: Mapping[str, Callable[[object], bool]]) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == members.keys()
        and all(check(value[name]) for name, check in members.items())
    )


def _list_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list | tuple) and all(check(item) for item in value)


def _is_mount(value: object) -> bool:
    members = {"destination": _is_text, "source": _is_text, "options": _is_texts, "type": _is_text}
    return _is_record(value, members)


def _is_capabilities(value: object) -> bool:
    return _is_record(value, dict.fromkeys(SETS, _is_texts))


def _is_receipt(value: object) -> bool:
    return _is_record(value, {"issuer": _is_text, "ttl_subjects": _is_texts})


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


_Form = Mapping[str, Callable[[object], bool]]
_UNMOUNT: _Form = {"unmountTarget": _is_text}
_PROCESS: _Form = {"argList": _is_texts, "envList": _is_texts, "workingDir": _is_text}
_IN_CONTAINER: _Form = {
    "containerID": _is_text,
    **_PROCESS,
    "noNewPrivileges": _is_bool,
    "user": _is_user,
    "groups": _list_of(_is_user),
    "umask": _is_text,
    "capabilities": _is_capabilities,
}
FORMS: Final[Mapping[Point, _Form]] = {
    Point.MOUNT_DEVICE: {"target": _is_text, "deviceHash": _is_text, "mountPathRegex": _is_text},
    Point.UNMOUNT_DEVICE: _UNMOUNT,
    Point.RW_MOUNT_DEVICE: {
        "target": _is_text,
        "encrypted": _is_bool,
        "ensureFilesystem": _is_bool,
        "filesystem": _is_text,
        "mountPathRegex": _is_text,
    },
    Point.RW_UNMOUNT_DEVICE: _UNMOUNT,
    Point.MOUNT_BLOCKDEV: {"target": _is_text},
    Point.UNMOUNT_BLOCKDEV: _UNMOUNT,
    Point.SCRATCH_MOUNT: {"target": _is_text, "encrypted": _is_bool},
    Point.SCRATCH_UNMOUNT: _UNMOUNT,
    Point.MOUNT_OVERLAY: {"containerID": _is_text, "layerPaths": _is_texts, "target": _is_text},
    Point.UNMOUNT_OVERLAY: _UNMOUNT,
    Point.CREATE_CONTAINER: {
        **_IN_CONTAINER,
        "sandboxDir": _is_text,
        "hugePagesDir": _is_text,
        "mounts": _list_of(_is_mount),
        "devices": _list_of(_is_object),
        "privileged": _is_bool,
        "seccompProfileSHA256": _is_text,
        "isSandboxContainer": _is_bool,
    },
    Point.EXEC_IN_CONTAINER: _IN_CONTAINER,
    Point.SIGNAL_CONTAINER_PROCESS: {
        "containerID": _is_text,
        "signal": _is_int,
        "isInitProcess": _is_bool,
        "argList": _is_texts,
    },
    Point.SHUTDOWN_CONTAINER: {"containerID": _is_text},
    Point.EXEC_EXTERNAL: _PROCESS,
    Point.PLAN9_MOUNT: {"rootPrefix": _is_text, "mountPathPrefix": _is_text, "target": _is_text},
    Point.PLAN9_UNMOUNT: _UNMOUNT,
    Point.GET_PROPERTIES: {},
    Point.DUMP_STACKS: {},
    Point.RUNTIME_LOGGING: {},
    Point.HOST_NETWORK: {},
    Point.LOAD_FRAGMENT: {
        "issuer": _is_text,
        "feed": _is_text,
        "namespace": _is_text,
        "fragment_loaded": _is_bool,
        "has_header_svn": _is_bool,
        "header_svn": _is_int_or_null,
        "receipts": _list_of(_is_receipt),
    },
    Point.LOAD_TRANSPARENCY_TRUST_LIST: {
        "issuer": _is_text,
        "subject": _is_text,
        "svn": _is_int,
        "ledgers": _is_texts,
    },
    Point.PORT_FORWARD: {"port": _is_int, "protocol": _is_text},
}


def check_input(point: Point, document: Mapping[str, object]) -> None:
    """Raises InputError unless every member is there, nothing else is, types hold, and all of it is UTF-8 of a size."""
    form = FORMS[point]
    for name, check in form.items():
        if name not in document or not check(document[name]):
            raise InputError(f"{name} is missing or of the wrong type")
    if unknown := document.keys() - form.keys():
        raise InputError(f"unknown member {min(unknown)}")
    try:
        encoded = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError):  # a lone surrogate, which OPA would replace silently
        raise InputError("not representable in UTF-8 JSON") from None
    if len(encoded) > MAX_INPUT_BYTES:
        raise InputError(f"larger than {MAX_INPUT_BYTES} bytes")
