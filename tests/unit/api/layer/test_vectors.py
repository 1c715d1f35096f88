"""Every vector of the layer format: the same bytes, or the same failure."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from parma_api.layer.convert import convert
from parma_api.layer.errors import LayerError

FOLDER = Path(__file__).parents[3] / "vectors" / "layers"
VECTORS = {
    vector["name"]: vector
    for vector in json.loads((FOLDER / "vectors.json").read_text())["vectors"]
}


@pytest.fixture
def tar(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name = request.node.callspec.params["name"]
    command = [sys.executable, str(FOLDER / "make_tars.py"), str(tmp_path), name]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / f"{name}.tar"


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str, tar: Path, tmp_path: Path) -> None:
    vector = VECTORS[name]
    data = tar.read_bytes()
    assert hashlib.sha256(data).hexdigest() == vector["tar_sha256"]
    target = tmp_path / "image"
    if "error" in vector:
        with tar.open("rb") as stream, pytest.raises(LayerError) as caught:
            convert(stream, target)
        assert caught.value.name == vector["error"]
        assert sorted(path.name for path in tmp_path.iterdir()) == [tar.name]
        return
    with tar.open("rb") as stream:
        result = convert(stream, target)
    assert result.image_size == vector["ext4_size"]
    assert result.image_sha256 == vector["ext4_sha256"]
    assert result.data_blocks == vector["data_blocks"]
    assert result.root_hash == vector["root_hash"]
    assert result.file_size == vector["total_size"] == target.stat().st_size
    assert result.file_sha256 == vector["total_sha256"]
