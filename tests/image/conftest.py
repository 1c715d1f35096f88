"""Images for these tests: the repository's own from the cache, and images with a toy agent in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

IMAGE_DIR = Path(__file__).resolve().parents[2] / "guest/image"
sys.path.insert(0, str(IMAGE_DIR))  # the build's parts are scripts, not a package of the project

SOURCES = ("api/parma_api", "guest", "policy_bundles", ".ci/opa")


def run_build(script: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Path:
    """Runs build.py; the folder that it prints last."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[-1])


def copy_sources(checkout: Path, target: Path, umask: int) -> Path:
    """The build's inputs in another folder, as another checkout would have them."""
    before = os.umask(umask)
    try:
        for name in SOURCES:
            for path in sorted((checkout / name).rglob("*"), reverse=umask == 0o077):
                if path.is_file() and "__pycache__" not in path.parts:
                    copy = target / path.relative_to(checkout)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes(path.read_bytes())
                    if path.stat().st_mode & 0o100:
                        copy.chmod(0o777 & ~umask)
    finally:
        os.umask(before)
    return target


@pytest.fixture(scope="session")
def sources(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as they are now: an edit during the tests must not change what they build."""
    return copy_sources(repository, tmp_path_factory.mktemp("sources"), 0o022)


@pytest.fixture(scope="session")
def script(sources: Path) -> Path:
    """The build's command."""
    return sources / "guest/image/build.py"


@pytest.fixture(scope="session")
def toy_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a parma_guest that answers pings."""
    folder = tmp_path_factory.mktemp("toy")
    package = folder / "parma_guest"
    package.mkdir()
    (package / "__init__.py").write_text("")
    shutil.copy(Path(__file__).with_name("toy_agent.py"), package / "__main__.py")
    return folder


@pytest.fixture(scope="session")
def toy_images(script: Path, toy_source: Path) -> dict[str, Path]:
    """Both variants with the toy in the agent's place."""
    return {
        variant: run_build(script, "--variant", variant, "--agent-source", str(toy_source))
        for variant in ("stub", "release")
    }


@pytest.fixture(scope="session")
def images(script: Path) -> dict[str, Path]:
    """The repository's images."""
    return {variant: run_build(script, "--variant", variant) for variant in ("stub", "release")}


@pytest.fixture(scope="session")
def roots(images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The unpacked root file systems of the repository's images."""
    folder = tmp_path_factory.mktemp("roots")
    for variant, image in images.items():
        command = ["fsck.erofs", f"--extract={folder / variant}", str(image / "root.img")]
        subprocess.run(command, check=True, capture_output=True)
        (folder / variant / "dev/null").write_bytes(b"")  # what subprocess opens
    return {variant: folder / variant for variant in images}
