"""`parma volume create` on its terminal."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from parma_api.cli import run
from parma_api.status import InvalidArgumentError
from parma_tenant.cli.volume import parse_size
from parma_tenant.volume.release import key_from_jwk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    (made / "file").write_text("content")
    return made


def create(*words: object) -> int:
    return run(["volume", "create", *map(str, words)])


def test_a_volume_and_its_key(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blob, file = tmp_path / "blob", tmp_path / "key"
    assert create(blob, "--from", folder, "--key", file, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    key = key_from_jwk(json.loads(file.read_text()))
    assert said == {
        "kind": "read-only",
        "volume": str(blob),
        "size": blob.stat().st_size,
        "file_system_size": key.blocks * 4096,
        "root_hash": key.root,
        "key": str(file),
    }
    assert file.stat().st_mode & 0o777 == 0o600


def test_lines_for_people_hold_no_secret(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--read-write", "--size", "16M", "--key", tmp_path / "key")
    assert create(tmp_path / "blob", "--from", folder, *words) == 0
    output = capsys.readouterr()
    secret = json.loads((tmp_path / "key").read_text())["k"]
    assert secret not in output.out + output.err
    assert "read-write volume of 16777216 bytes" in output.out
    assert "parma broker key import --jwk" in output.out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "name their folder by --from"),
        (("--read-write",), "needs a --size"),
        (("--from", "in", "--size", "16M"), "with --read-write"),
        (("--from", "absent"), "absent is no folder"),
        (("--read-write", "--size", "lots"), "'lots' is no size"),
        (("--read-write", "--size", "1M"), "16 MiB to 16 TiB"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    match: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert create("blob", "--key", "key", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert match in line
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]


def test_nothing_is_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("precious")
    assert create(tmp_path / "blob", "--from", folder, "--key", tmp_path / "key") == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "key").read_text() == "precious"
    assert not (tmp_path / "blob").exists()
    assert create(tmp_path / "same", "--from", folder, "--key", tmp_path / "same") == 2


def serve(*words: object) -> int:
    return run(["volume", "serve", *map(str, words)])


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("absent",), "absent: No such file"),
        (("/dev/null",), "neither a file nor a block device"),
        (("in/file", "file=in/file"), "two blobs have the name file"),
        (("a/b=in/file",), "a name has letters"),
        (("in/file", "--listen", "nowhere"), "HOST:PORT"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    match: str,
) -> None:
    assert folder.exists()
    monkeypatch.chdir(tmp_path)
    assert serve(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert match in line


def test_volumes_are_served_until_sigterm(folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("parma")), "volume", "serve", "--json"]
    command += ["--listen", "127.0.0.1:0", str(folder / "file"), f"other={folder / 'file'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        urls = json.loads(process.stdout.readline())
        assert set(urls) == {"file", "other"}
        with urllib.request.urlopen(urls["other"]) as answer:
            assert answer.read() == b"content"
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("64M", 64 << 20), ("64MiB", 64 << 20), ("1g", 1 << 30), ("2T", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1.5G", "64X", "1" * 20])
def test_no_sizes(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_size(text)
