"""Starts the agent. The guest's init runs this file as `python3 -I -S`: no environment, no site."""

import sys

sys.dont_write_bytecode = True
sys.path[:0] = ["/usr/lib/parma", "/usr/lib/parma/site"]

from parma_guest.__main__ import main  # noqa: E402 (the path must be set first)

if __name__ == "__main__":
    sys.exit(main())
