"""The command line as a user meets it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from parma_api import cli
from parma_api.status import InvalidArgumentError


def test_help_lists_the_groups_of_all_packages() -> None:
    result = CliRunner().invoke(cli.parma, ["--help"])
    assert result.exit_code == 0
    assert {"doctor", "install", "policy"} <= set(result.output.split())


def test_an_unknown_command_is_bad_usage() -> None:
    assert CliRunner().invoke(cli.parma, ["nonsense"]).exit_code == cli.BAD_INPUT


def test_the_digest_is_host_data(tmp_path: Path) -> None:
    text = b"package policy\n"
    (tmp_path / "p.rego").write_bytes(text)
    result = CliRunner().invoke(cli.parma, ["policy", "digest", str(tmp_path / "p.rego")])
    assert result.output.strip() == hashlib.sha256(text).hexdigest()


def test_an_error_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fail() -> None:
        raise InvalidArgumentError("what, why\nand a second line")

    monkeypatch.setattr(cli, "parma", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == cli.BAD_INPUT
    assert capsys.readouterr().err == "error: what, why\n"
