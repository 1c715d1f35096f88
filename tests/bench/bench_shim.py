"""`start` and `delete` of the shim against an empty Python of the same kind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parma_shim.lifecycle.launcher import import_folders, write_launcher
from parma_shim.lifecycle.state import is_alive, read_state
from tests.bench.row import Limit, Rows, in_turns, row, scaled

ROUNDS = 25
_FLAGS = ("-namespace", "bench", "-address", "/containerd.sock", "-publish-binary", "/bin/true")
_BASELINE = "python3 -c pass"


class _Shim:
    """The product's executable in a folder of its own. What `start` leaves running is ended at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "containerd-shim-parma-v2"
        write_launcher(self.program, sys.executable, import_folders())
        self._count = 0

    def _bundle(self, name: str) -> Path:
        bundle = self.folder / "b" / name
        bundle.mkdir(parents=True, exist_ok=True)
        (bundle / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "annotations": {}}))
        return bundle

    def _run(self, bundle: Path, *words: str) -> None:
        subprocess.run(
            [str(self.program), *_FLAGS, *words],
            cwd=bundle,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            env={"PARMA_RUN": str(self.folder / "r"), "PATH": os.environ["PATH"]},
        )

    def start(self) -> float:
        """Seconds of a `start` for a new group; its server is gone before the next sample."""
        self._count += 1
        name = f"c{self._count}"
        bundle = self._bundle(name)
        begin = time.perf_counter()
        self._run(bundle, "-id", name, "start")
        seconds = time.perf_counter() - begin
        self._end()
        return seconds

    def delete(self) -> None:
        """Of a container that is gone, as containerd runs it after each removal."""
        bundle = self._bundle("gone")
        self._run(bundle, "-bundle", str(bundle), "-id", "gone", "delete")

    def _end(self) -> None:
        deadline = time.monotonic() + 20
        while not (found := list((self.folder / "r").glob("*/state.json"))):
            assert time.monotonic() < deadline, "the server does not come up"
            time.sleep(0.01)
        state = read_state(str(found[0]))
        while is_alive(state.shim_pid, state.shim_start):
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.shim_pid, signal.SIGKILL)
            time.sleep(0.005)
        shutil.rmtree(self.folder / "r")


def _empty() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def run() -> Rows:
    """Rows for `make bench`."""
    with tempfile.TemporaryDirectory(prefix="pb-") as name:
        shim = _Shim(Path(name))
        started, empty = [], []
        for _ in range(ROUNDS):
            empty += in_turns(1, _empty, warm_up=0)[0]
            started.append(shim.start())
        deleted, beside = in_turns(ROUNDS, shim.delete, _empty)
    return [
        row("shim.start", "ms", scaled(started, 1e3), _BASELINE, scaled(empty, 1e3), Limit(6)),
        row("shim.delete", "ms", scaled(deleted, 1e3), _BASELINE, scaled(beside, 1e3), Limit(4)),
    ]
