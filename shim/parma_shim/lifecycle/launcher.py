"""Writes the file `containerd-shim-parma-v2`.

pip's console scripts load `site`, its .pth files and `re` before they do anything; this one starts Python isolated
(-I: no environment, no user folder) and without `site` (-S), and names the folders to import from itself.

    python -m parma_shim.lifecycle.launcher .venv/bin/containerd-shim-parma-v2
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

MAX_SHEBANG = 127
"""Bytes of a first line that older kernels read (binfmt_script)."""
PACKAGES = ("parma_shim", "parma_api", "betterproto")
"""One from each folder that the shim imports from: ours, and where its dependencies are installed."""

_TEXT = """\
import sys
sys.path[:0] = {folders!r}
from parma_shim.lifecycle.command import main
sys.exit(main(sys.argv[1:]))
"""


def launcher_text(python: str, folders: Sequence[str]) -> str:
    """The script. Its first line is a shell's when the path of `python` is too long, or has a space, for the kernel."""
    first = f"#!{python} -IS\n"
    if len(first) > MAX_SHEBANG or " " in python:
        # A shell runs the second line; Python reads it as a text that nobody uses.
        first = f"#!/bin/sh\n'''exec' {_quoted(python)} -IS \"$0\" \"$@\"\n' '''\n"
    return first + _TEXT.format(folders=list(folders))


def import_folders() -> tuple[str, ...]:
    """Where this Python finds the packages that the shim needs, each folder once."""
    found: dict[str, None] = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin:
            raise SystemExit(f"{name} is not installed: run `make env`")
        found[str(Path(spec.origin).resolve().parent.parent)] = None
    return tuple(found)


def write_launcher(path: Path, python: str, folders: Sequence[str]) -> None:
    """Replaces the file as a whole: containerd may be about to run it. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(launcher_text(python, folders))
    temporary.chmod(0o755)
    temporary.replace(path)


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\{c}" if c in '"\\$`' else c for c in text) + '"'


def main(words: Sequence[str]) -> int:
    """One argument: the file to write."""
    if len(words) != 1:
        sys.stderr.write("usage: python -m parma_shim.lifecycle.launcher FILE\n")
        return 2
    write_launcher(Path(words[0]), sys.executable, import_folders())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
