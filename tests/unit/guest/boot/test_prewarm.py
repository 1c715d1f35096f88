"""The engine's program is read ahead; nobody waits for it, and nothing depends on it."""

from __future__ import annotations

import os
import sys

from parma_guest.boot.prewarm import prewarm


def test_the_program_is_started_and_left_to_pid_1() -> None:
    pid = prewarm("/bin/true")
    assert pid is not None
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_no_program_is_no_failure() -> None:
    assert prewarm("/nonexistent/opa") is None


def test_importing_the_agent_starts_nothing() -> None:
    """Only PID 1 does: the image's build imports it too."""
    script = (
        "import os, sys\nos.posix_spawn = lambda *a, **k: sys.exit('spawned')\n"
        "import parma_guest.__main__"
    )
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", script])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
