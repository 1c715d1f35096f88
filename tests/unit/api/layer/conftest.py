"""The vectors' own tar writer, and how to convert bytes."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from parma_api.layer import Digests, LayerImage, Limits, convert

NO_LIMITS = Limits()
VECTORS = Path(__file__).parents[3] / "vectors" / "layers"


@pytest.fixture(scope="session")
def tars() -> ModuleType:
    """tests/vectors/layers/make_tars.py: headers, files, PAX records by hand."""
    spec = importlib.util.spec_from_file_location("layer_make_tars", VECTORS / "make_tars.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def hashed() -> Callable[..., LayerImage]:
    """Converts a tar's bytes without a file."""

    def convert_bytes(data: bytes, limits: Limits = NO_LIMITS) -> LayerImage:
        return convert(io.BytesIO(data), None, limits=limits, digests=Digests.ROOT)

    return convert_bytes
