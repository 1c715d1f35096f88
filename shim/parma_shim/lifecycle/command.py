"""What containerd runs: -v, -info, start, delete; and `serve`, which `start` runs.

Nothing heavy is imported before the action is known.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from parma_api.status import ApiError
from parma_shim.lifecycle.arguments import Arguments, parse_arguments, require_identity

if TYPE_CHECKING:
    from parma_shim.lifecycle.serve import Assemble


def main(words: list[str], assemble: Assemble | None = None) -> int:
    """The exit status. `assemble` gives the collaborators that `serve` works with; None: the real ones."""
    try:
        arguments = parse_arguments(words)
        if arguments.version or arguments.info:
            _tell(arguments)
            return 0
        return _act(arguments, assemble)
    except ApiError as error:
        return _fail(error.message)
    except OSError as error:
        return _fail(f"{error.filename or 'the shim'}: {error.strerror}")


def _act(arguments: Arguments, assemble: Assemble | None) -> int:
    bundle = os.path.abspath(arguments.bundle or ".")  # noqa: PTH100 (pathlib costs an import)
    match arguments.action:
        case "start":
            from parma_shim.lifecycle.start import start

            _out(f"{start(arguments, bundle)}\n".encode())
        case "delete":
            from parma_shim.lifecycle.delete import delete

            answer, warnings = delete(arguments, bundle)
            for line in warnings:
                _err(line)
            _out(answer)
        case "serve":
            from parma_shim.lifecycle.serve import serve

            require_identity(arguments)
            serve(arguments, bundle, assemble)
        case other:
            return _fail(f"unknown action {other[:64]!r}: containerd runs `start` and `delete`")
    return 0


def _tell(arguments: Arguments) -> None:
    from parma_shim.lifecycle.info import runtime_info, version_text

    if arguments.version:
        _out(version_text(os.path.basename(sys.argv[0])).encode())  # noqa: PTH119
    else:
        _out(runtime_info())


def _fail(message: str) -> int:
    """containerd shows standard output and error of `start` together as the reason."""
    _err(message)
    return 1


def _out(data: bytes) -> None:
    sys.stdout.flush()
    while data:
        data = data[os.write(1, data) :]


def _err(line: str) -> None:
    os.write(2, f"{line}\n".encode(errors="replace"))
