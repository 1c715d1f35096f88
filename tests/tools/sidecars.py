"""The sidecars' images, by the repository's own builder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tenant/sidecars"))

from sidecar_images import SKR, SKR_COMMAND, VOLUME, VOLUME_COMMAND, ensure

__all__ = ["SKR", "SKR_COMMAND", "VOLUME", "VOLUME_COMMAND", "ensure"]
