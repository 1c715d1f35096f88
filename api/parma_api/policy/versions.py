"""What a policy says it was written for: never beyond what this machine knows (policy.md, version rules)."""

from __future__ import annotations

import re
from typing import Final

from parma_api.policy.decision import PolicyInvalid
from parma_api.policy.engine import Versions
from parma_api.policy.points import API_VERSION, FRAMEWORK_VERSION

_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")


def check_versions(versions: Versions) -> None:
    """Raises PolicyInvalid for a version beyond ours, or one that is none; a policy without versions passes."""
    _check_version("api", versions.api, API_VERSION)
    _check_version("framework", versions.framework, FRAMEWORK_VERSION)


def _check_version(what: str, stated: object, ours: str) -> None:
    if stated is None:
        return
    if not isinstance(stated, str) or not _VERSION.fullmatch(stated):
        raise PolicyInvalid(
            f"{what}_version is not major.minor.patch; state {ours} or older",
            (f"{what}.version_invalid",),
        )
    if _numbers(stated) > _numbers(ours):
        raise PolicyInvalid(
            f"{what}_version {stated} is newer than {ours}; update the machine's image",
            (f"{what}.version_ahead",),
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
