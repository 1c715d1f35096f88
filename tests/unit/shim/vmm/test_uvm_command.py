"""`parma uvm`: which images this host has, and whether they are whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from parma_shim.cli.uvm import uvm
from tests.tools.tiny_kernel import write_image


def rows(*words: str) -> tuple[int, list[dict[str, object]]]:
    done = CliRunner().invoke(uvm, [*words, "--json"])
    return done.exit_code, json.loads(done.stdout)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "uvm/stub/current"
    folder.mkdir(parents=True)
    write_image(folder)
    monkeypatch.delenv("PARMA_UVM", raising=False)
    monkeypatch.setenv("PARMA_CACHE", str(tmp_path))
    return folder


def test_what_is_there(image: Path) -> None:
    status, (stub, release) = rows("ls")
    assert status == 0
    assert (stub["directory"], stub["problem"]) == (str(image), "")
    assert stub["size"] == sum(x.stat().st_size for x in image.iterdir() if x.suffix != ".json")
    assert release["directory"] == ""
    assert "run `make uvm`" in str(release["problem"])


def test_a_flipped_byte(image: Path) -> None:
    assert rows("check")[0] == 0
    root = bytearray((image / "root.img").read_bytes())
    root[0] ^= 1
    (image / "root.img").write_bytes(root)
    assert rows("ls")[1][0]["problem"] == ""
    status, (stub, _) = rows("check")
    assert status == 1
    assert "root.img has SHA-256" in str(stub["problem"])


def test_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARMA_UVM", str(tmp_path))
    assert rows("check")[0] == 1
