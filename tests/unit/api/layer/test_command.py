"""`parma layer convert` and what may be around a tar."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from parma_api import cli
from parma_api.layer.errors import LayerError


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("hello")
        info.size = 70000
        archive.addfile(info, io.BytesIO(b"x" * 70000))
    return out.getvalue()


FORMS = {
    "tar": tar(),
    "gz": gzip.compress(tar()),
    "gz-members": gzip.compress(tar()[:1000]) + gzip.compress(tar()[1000:]),
    "zst": zstandard.compress(tar()),
    "zst-frames": zstandard.compress(tar()[:1000]) + zstandard.compress(tar()[1000:]),
}


def run(tmp_path: Path, data: bytes) -> dict[str, object]:
    (tmp_path / "layer").write_bytes(data)
    arguments = ["layer", "convert", str(tmp_path / "layer"), str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(cli.parma, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return dict(json.loads(result.output))


def test_each_form_gives_the_same_image(tmp_path: Path) -> None:
    results = [run(tmp_path, data) for data in FORMS.values()]
    assert all(result == results[0] for result in results)
    assert set(results[0]) == {
        *("root_hash", "data_blocks", "image_size", "image_sha256", "file_size", "file_sha256")
    }


@pytest.mark.parametrize("form", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_broken_wrapping_leaves_nothing(tmp_path: Path, form: str, damage: str) -> None:
    data = bytearray(FORMS[form])
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 0xFF
    with pytest.raises(LayerError) as caught:
        run(tmp_path, bytes(data))
    assert caught.value.name in ("E_COMPRESSION", "E_TAR_TRUNCATED", "E_TAR_HEADER")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    arguments = ["layer", "convert", str(tmp_path / "none"), str(tmp_path / "out")]
    result = CliRunner().invoke(cli.parma, arguments)
    assert result.exit_code != 0
    assert not (tmp_path / "out").exists()
