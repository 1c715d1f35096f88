"""`containerd-shim-parma-v2`, and `python -m parma_shim`."""

from __future__ import annotations

import sys

from parma_shim.lifecycle.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
