"""Where things are in the guest."""

from __future__ import annotations

from typing import Final

OPA: Final = "/usr/bin/opa"
BUNDLES: Final = "/usr/share/parma/bundle"
RUN: Final = "/run/parma"
