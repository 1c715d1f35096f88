#!/usr/bin/env python3
"""Builds the images of Parma's sidecars, as an OCI archive that `ctr images import` takes.

    sidecar_images.py [--out FILE]         prints the archive

Layers: Debian's Python with the wheels of the guest's lock files, the public web's root certificates, this repository's
packages. Byte-compiled: under emulation a start is some three times as quick. Results are kept in
`${PARMA_CACHE:-~/.cache/parma}/sidecars`. Needs root (chroot) and mmdebstrap, as the guest's image does.
"""

# ruff: noqa: T201, E402 (a build script talks on the terminal, and finds its neighbours by path)
from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "guest/image"))

from uvmbuild import assemble, cache, config, lock, root

from parma_shim.demo.debian import unpacked
from parma_shim.demo.ocilayout import Entry, Image, ImageConfig, layer_tar, write_archive

SKR = "parma.example/skr:1"
SKR_COMMAND = ("/usr/bin/python3", "-I", "-S", "/usr/bin/parma-skr")
HOME = "usr/lib/parma"
SKR_PARTS = ("claims", "release", "services", "verify", "sidecar/__init__.py", "sidecar/skr")
"""What of parma_tenant the key-release sidecar consists of."""
VOLUME = "parma.example/volume:1"
VOLUME_COMMAND = ("/usr/bin/python3", "-I", "-S", "/usr/bin/parma-volume")
VOLUME_PARTS = (
    "sidecar/__init__.py", "sidecar/volume", "sidecar/skr/__init__.py", "sidecar/skr/client.py",
    "volume/__init__.py", "volume/key.py", "volume/release.py",
)  # fmt: skip
"""What the encrypted volume sidecar consists of."""
_SUITE = "trixie"
_TAKE = ("usr/bin/python3.13", "usr/bin/python3", "usr/lib64", "usr/lib/x86_64-linux-gnu")
_ETC = ("passwd", "group", "nsswitch.conf", "hosts", "ld.so.cache")
_SITE = (
    "aiohappyeyeballs aiohttp aiosignal attr attrs frozenlist idna multidict propcache yarl typing_extensions.py"
    " cryptography cryptography.libs _cffi_backend* multidict* __pycache__"
).split()
_LAUNCHER = """\
import sys
sys.dont_write_bytecode = True
sys.path[:0] = ["/usr/lib/parma", "/usr/lib/parma/site"]
from parma_tenant.sidecar.{name}.main import main
sys.exit(main())
"""
_DROP = ("**/py.typed", "**/*.proto", "**/*.md", "**/__pycache__")


def python_tree(home: Path) -> Path:
    """A folder with the guest's Python and wheels, from its lock files; made when it is missing."""
    cfg = config.load()
    text = (TREE / "guest/image/debs.lock").read_text()
    requirements = TREE / "guest/image/requirements.lock"
    inputs = assemble.Inputs(
        config=cfg,
        variant=cfg.variants["release"],
        lock=lock.parse(text),
        lock_digest=assemble.lock_digest(text, requirements),
        locked=True,
        opa=Path("/"),
        agent_source=None,
        home=home / "uvm",
    )
    with cache.locked(inputs.home):
        assemble.apt.fetch(inputs.lock, inputs.store)
        return assemble._base(inputs) / "root"  # noqa: SLF001 - the same tree, not a second one


def python_layer(tree: Path) -> bytes:
    """Interpreter, libraries, wheels."""
    site = tree / HOME / "site"
    chosen = [tree / path for path in _TAKE]
    chosen += [tree / "usr/lib/python3.13", *(tree / "etc" / name for name in _ETC)]
    chosen += [path for pattern in _SITE for path in site.glob(pattern)]
    folders = [
        "etc",
        "dev",
        "proc",
        "run",
        "sys",
        "usr",
        "usr/bin",
        "usr/lib",
        HOME,
        f"{HOME}/site",
    ]
    entries = [Entry(f"{name}/") for name in sorted(folders)]
    entries += [Entry(name, link=f"usr/{name}") for name in ("bin", "lib", "lib64")]
    entries.append(Entry("tmp/", 0o1777))
    return layer_tar([*entries, *_entries(tree, chosen)])


def roots_layer() -> bytes:
    """Debian's ca-certificates, as the one file that its own tool would write."""
    with unpacked(["ca-certificates"], _SUITE) as folder:
        found = sorted((Path(folder) / "root/usr/share/ca-certificates/mozilla").glob("*.crt"))
        bundle = b"".join(path.read_bytes() for path in found)
    path = "etc/ssl/certs/ca-certificates.crt"
    return layer_tar([Entry("etc/ssl/"), Entry("etc/ssl/certs/"), Entry(path, 0o644, bundle)])


def parma_layer(tree: Path, parts: Sequence[str], launcher: Entry) -> bytes:
    """parma_api and `parts` of parma_tenant, byte-compiled with the image's own interpreter, and the launcher."""
    with tempfile.TemporaryDirectory(prefix="parma-sidecar-") as work:
        made = Path(work) / "root"
        shutil.copytree(tree, made, symlinks=True)
        packages = made / HOME
        shutil.copytree(TREE / "api/parma_api", packages / "parma_api")
        for name in ("__init__.py", *parts):
            _copy(TREE / "tenant/parma_tenant" / name, packages / "parma_tenant" / name)
        for package in ("parma_api", "parma_tenant"):
            root._drop(packages / package, _DROP)  # noqa: SLF001
        root._drop(packages / "parma_api", ("gen", "proto", "layer", "cli.py", "launch.py"))  # noqa: SLF001
        root.compile_python(made, f"{HOME}/parma_api", f"{HOME}/parma_tenant")
        chosen = [packages / "parma_api", packages / "parma_tenant"]
        return layer_tar([launcher, *_entries(made, chosen)])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _entries(tree: Path, chosen: Iterable[Path]) -> Iterable[Entry]:
    """Tar entries of files, links and folders, in a fixed order."""
    paths = {inner for path in chosen for inner in (path, *_inside(path))}
    for path in sorted(paths):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            yield Entry(name, link=str(path.readlink()))
        elif path.is_dir():
            yield Entry(f"{name}/")
        else:
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            yield Entry(name, mode, path.read_bytes())


def _inside(path: Path) -> Iterable[Path]:
    return path.rglob("*") if path.is_dir() and not path.is_symlink() else ()


def sidecar_images(home: Path) -> tuple[Image, ...]:
    """Key release and encrypted volumes; they have the layers beneath in common."""
    tree = python_tree(home)
    below = (python_layer(tree), roots_layer())
    return (
        Image(SKR, (*below, _parma(tree, "skr", SKR_PARTS)), ImageConfig(SKR_COMMAND)),
        Image(VOLUME, (*below, _parma(tree, "volume", VOLUME_PARTS)), ImageConfig(VOLUME_COMMAND)),
    )


def _parma(tree: Path, name: str, parts: Sequence[str]) -> bytes:
    text = _LAUNCHER.format(name=name).encode()
    return parma_layer(tree, parts, Entry(f"usr/bin/parma-{name}", 0o755, text))


def ensure(home: Path) -> Path:
    """The archive in the cache `home`, built when it is missing or its sources have changed."""
    sources = cache.source_files(
        TREE / "api/parma_api",
        *(TREE / "tenant/parma_tenant" / name for name in (*SKR_PARTS, *VOLUME_PARTS)),
        TREE / "guest/image",
        Path(__file__),
    )
    archive = home / "sidecars" / f"sidecars-{cache.digest_files(sources, TREE)[:16]}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        images = sidecar_images(home)
        for pattern in ("skr-*.tar", "sidecars-*.tar"):
            for old in archive.parent.glob(pattern):
                old.unlink(missing_ok=True)
        write_archive(images, archive)
    return archive


def main() -> int:
    """Builds, and prints where."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="copy the archive here")
    chosen = parser.parse_args()
    archive = ensure(config.cache_dir())
    if chosen.out is not None:
        shutil.copy(archive, chosen.out)
    print(chosen.out or archive)
    return 0


if __name__ == "__main__":
    sys.exit(main())
