"""Each test has a cache of hashes and a docker configuration of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from parma_tenant.cli.policy import policy


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in (
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


class Caller:
    """`parma policy`, as a user calls it, with an own cache of hashes where nothing else of the cache is needed."""

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(policy, [str(argument) for argument in arguments])


@pytest.fixture
def call() -> Caller:
    return Caller()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
