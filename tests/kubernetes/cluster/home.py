"""Where the cluster's parts are, and how commands are run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
MODULES = TREE / ".ci" / "kind"
SUITE = "bookworm"
"""Of the node: its systemd and containerd still work with cgroup v1, which newer suites refuse."""


class ClusterError(Exception):
    """A step of building or running the cluster failed; one line."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of everything that is built or runs."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        """In the cache outside the tree."""
        cache = os.environ.get("PARMA_CACHE") or Path.home() / ".cache" / "parma"
        return cls(Path(cache) / "kind")

    @property
    def cache(self) -> Path:
        """The project's cache, of which this is a folder."""
        return self.root.parent

    @property
    def kubeconfig(self) -> Path:
        """For kubectl, while the cluster runs."""
        return self.root / "kubeconfig"

    @property
    def docker_socket(self) -> Path:
        """Of the private dockerd."""
        return self.root / "docker.sock"


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout: float = 600,
) -> str:
    """Runs a command; its standard output. Raises ClusterError with the last lines of what it wrote."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{words[0]}: {error}") from error
    if done.returncode != 0:
        told = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()[-15:]
        raise ClusterError(
            f"{' '.join(words)[:200]} ended with {done.returncode}:\n" + "\n".join(told)
        )
    return done.stdout.decode(errors="replace")


@contextmanager
def step(text: str) -> Iterator[None]:
    """Says what is done, and how long it took."""
    start = time.monotonic()
    print(f"kind: {text} ...", file=sys.stderr, flush=True)
    yield
    print(f"kind: {text}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def digest(parts: Iterable[Path | str]) -> str:
    """Of file contents and texts, short enough for a name."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()[:16]
