"""Reads the policy engine's program while this side imports: its 43 MB come through verity, page by page.

An engine without its policy could not take it later (a bundle is fixed at start), so a process that only says its
version is all that can be started before the policy is known. Imports next to nothing: it is the agent's first act.
"""

from __future__ import annotations

import os

OPA = "/usr/bin/opa"


def prewarm(program: str = OPA) -> int | None:
    """The process, which nobody needs to wait for: PID 1 reaps it with the orphans. None if it cannot be started."""
    null = os.devnull
    try:
        return os.posix_spawn(
            program,
            [program, "version"],
            {},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, null, os.O_WRONLY, 0),
            ],
            setsid=True,
        )
    except OSError:
        return None
