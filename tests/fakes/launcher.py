"""An executable shim whose guests are fake: the product's command line with other collaborators (`assemble`).

There is no switch for this in the product. Which images a container has is asked of nobody: its layers are names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from parma_shim.lifecycle import launcher

if TYPE_CHECKING:
    from parma_shim.lifecycle.arguments import Arguments
    from parma_shim.sandbox.ports import Ports

_TEXT = """\
#!{python} -IS
import sys
sys.path[:0] = {folders!r}
from tests.fakes.launcher import main
sys.exit(main(sys.argv[1:]))
"""


def write_fake_shim(path: Path, repository: Path) -> Path:
    """The executable."""
    folders = [*launcher.import_folders(), str(repository)]
    path.write_text(_TEXT.format(python=sys.executable, folders=folders))
    path.chmod(0o755)
    return path


def main(words: list[str]) -> int:
    """As `parma_shim.lifecycle.command.main`."""
    from parma_shim.lifecycle import command

    return command.main(words, assemble)


def assemble(arguments: Arguments) -> Ports:
    """Fakes, made when `serve` wants them."""
    from tests.fakes.guest import Behaviour
    from tests.fakes.ports import FakeImages, fake_ports

    run = Path(os.environ["PARMA_RUN"])
    return fake_ports(run, Behaviour(), FakeImages())
