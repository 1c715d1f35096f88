"""The runtime handler in containerd's configuration, and the shim that it names."""

from __future__ import annotations

import shutil

from parma_api.status import ApiError
from parma_shim.doctor import containerd_config as toml
from parma_shim.doctor.result import Check, Finding, Host, fail, note, ok

SHIM = "containerd-shim-parma-v2"


def run(host: Host) -> Finding:
    """Is `parma install` done, and does containerd find the shim?"""
    try:
        text = host.containerd_config.read_text() if host.containerd_config.exists() else ""
        plan = toml.plan(text)
    except (OSError, UnicodeDecodeError, ApiError) as error:
        return note(f"{host.containerd_config} cannot be judged", str(error))
    if plan.changes:
        missing = "; ".join(plan.changes)
        return note(
            f"CRI has no complete handler `parma` ({missing})",
            "parma install; ctr needs no handler",
        )
    found = shutil.which(SHIM, path=host.environment.get("PATH"))
    if found is None:
        advice = f"link {SHIM} into a folder of containerd's PATH, such as /usr/local/bin"
        return fail(f"handler there, and {SHIM} is not on the PATH", advice)
    return ok(f"handler `parma`, {found}")


CHECK = Check("handler", run)
