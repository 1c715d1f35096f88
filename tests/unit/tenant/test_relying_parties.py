"""The page for relying parties: its example runs as it stands, and its tables name what there is."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from parma_tenant.release.grammar import Operator


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs/relying-parties.md").read_text()


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def test_the_example_runs(page: str, repository: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BROKER_PORT": free_port(),
        "SKR_PORT": free_port(),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input="\n".join(blocks),
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the group has the key" in done.stdout
    assert "do not satisfy the key's release policy" in done.stdout
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "the example cleans up"


def test_every_operator_is_named(page: str) -> None:
    line = next(line for line in page.splitlines() if line.startswith("OPERATOR"))
    assert line.split()[1:] == [str(operator) for operator in Operator]
