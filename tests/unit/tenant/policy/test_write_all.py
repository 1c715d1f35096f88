"""Where generated files go."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parma_tenant.cli.generate import write_all
from parma_tenant.source.errors import SourceError


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_bytes)
        write_all([(pipe, b"a policy"), (file, b"another")])
        assert read.result(10) == b"a policy"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert file.read_bytes() == b"another"


def test_nothing_is_written_when_one_place_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be written"):
        write_all([(tmp_path / "file", b"x"), (tmp_path / "nowhere" / "file", b"y")])
    assert list(tmp_path.iterdir()) == []
