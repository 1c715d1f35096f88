"""Two builds from the same inputs are the same bytes: other folder, other cache, other umask, other order of files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.image.conftest import copy_sources, run_build

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.timeout(600)]


def build_afresh(tree: Path, home: Path, cache: Path, umask: int) -> dict[str, Path]:
    """Both variants with an empty cache but for what was downloaded."""
    (home / "uvm").mkdir(parents=True)
    for downloads in ("debs", "wheels"):
        shutil.copytree(cache / "uvm" / downloads, home / "uvm" / downloads, copy_function=os.link)
    before = os.umask(umask)
    try:
        return {
            variant: run_build(
                tree / "guest/image/build.py",
                *("--variant", variant, "--opa", str(cache / "opa/opa")),
                environment={"PARMA_CACHE": str(home)},
            )
            for variant in ("stub", "release")
        }
    finally:
        os.umask(before)


def test_two_builds_are_byte_identical(
    sources: Path, cache: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    assert images  # so that everything is downloaded
    other = copy_sources(sources, tmp_path / "a much longer name/two", 0o077)
    first = build_afresh(sources, tmp_path / "cache1", cache, 0o022)
    second = build_afresh(other, tmp_path / "cache2", cache, 0o077)
    for variant in ("stub", "release"):
        files = sorted(path.name for path in first[variant].iterdir())
        assert files == [
            *("bzImage", "image.json", "initrd.img", "root.files", "root.img", "vmlinux"),
        ]
        for name in files:
            same = (first[variant] / name).read_bytes() == (second[variant] / name).read_bytes()
            assert same, f"{variant}: {name} differs"


def test_the_agents_digest_follows_its_source(
    script: Path, toy_source: Path, toy_images: dict[str, Path], tmp_path: Path
) -> None:
    changed = tmp_path / "toy"
    shutil.copytree(toy_source, changed)
    main = changed / "parma_guest/__main__.py"
    main.write_text(main.read_text() + "\nCHANGED = 1\n")
    other = run_build(
        script,
        *("--variant", "stub", "--agent-source", str(changed)),
    )
    old, new = (
        json.loads((folder / "image.json").read_text()) for folder in (toy_images["stub"], other)
    )
    assert old["agent_sha256"] != new["agent_sha256"]
    assert old["files"]["root"] != new["files"]["root"]
    assert old["files"]["initrd"] == new["files"]["initrd"]
    assert old["opa_sha256"] == new["opa_sha256"]
