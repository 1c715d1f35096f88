"""An image with `parma broker`: this machine's Python, its libraries, the wheels of the environment, our packages."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

from parma_shim.demo.debian import library_entries
from parma_shim.demo.ocilayout import Entry, Image, ImageConfig, layer_tar, write_archive

from .cluster.home import TREE

BROKER = "parma.example/broker:1"
COMMAND = ("/usr/bin/python3", "-I", "-S", "/usr/bin/parma")
_SITE = "usr/lib/parma"
_WHEELS = (
    "aiohappyeyeballs aiohttp aiosignal attrs betterproto cbor2 cffi click cryptography frozenlist grpclib h2 hpack "
    "hyperframe idna multidict propcache pyOpenSSL PyYAML python-dateutil six typing_extensions "
    "yarl zstandard"
).split()
_OURS = {"parma_api": TREE / "api/parma_api", "parma_tenant": TREE / "tenant/parma_tenant"}
_LEFT_OUT = (
    "__pycache__ site-packages dist-packages test idlelib tkinter ensurepip lib2to3 pydoc_data"
).split()
_LAUNCHER = f"""\
import sys
sys.path[:0] = ["/{_SITE}"]
from importlib.metadata import entry_points
from parma_api.cli import main
sys.exit(main())
"""
_ENTRY_POINTS = "[parma.commands]\nbroker = parma_tenant.cli.broker:broker\n"


def ensure(cache: Path) -> Path:
    """The archive in `cache`, built when what goes in has changed."""
    sources = [Path(__file__), *(path for root in _OURS.values() for path in _files(root))]
    total = hashlib.sha256(sys.version.encode())
    for path in sorted(sources):
        total.update(path.read_bytes())
    archive = cache / f"broker-{total.hexdigest()[:16]}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob("broker-*.tar"):
            old.unlink()
        layers = (layer_tar(_python()), layer_tar(_packages()))
        write_archive([Image(BROKER, layers, ImageConfig(COMMAND))], archive)
    return archive


def _python() -> Iterator[Entry]:
    """Interpreter, standard library, and the libraries that both need."""
    program = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    place = f"usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    yield from _folders(("etc", "proc", "sys", "dev", "tmp", "run", "usr", "usr/bin", place))
    yield Entry("usr/bin/python3", 0o755, program.read_bytes())
    modules = [path for path in library.rglob("*.so") if not set(_LEFT_OUT) & set(path.parts)]
    modules += [path for path in _wheel_files() if path.suffix == ".so"]
    names = [str(path).lstrip("/") for path in (program, *modules)]
    # An interpreter beside Debian's has a library of its own, by the same name.
    own = sysconfig.get_config_var("INSTSONAME") or ""
    for entry in library_entries(Path("/"), names):
        found = Path(sysconfig.get_config_var("LIBDIR") or "") / own
        is_own = bool(own) and Path(entry.path).name == own and found.is_file()
        yield replace(entry, content=found.read_bytes()) if is_own else entry
    yield from _tree(library, place)


def _packages() -> Iterator[Entry]:
    yield from _folders((_SITE,))
    for path, name in _wheel_files().items():
        yield Entry(f"{_SITE}/{name}", 0o644, path.read_bytes())
    for name, root in _OURS.items():
        yield from _tree(root, f"{_SITE}/{name}")
    about = f"{_SITE}/parma-0.dist-info"
    yield Entry(f"{about}/METADATA", 0o644, b"Metadata-Version: 2.1\nName: parma\nVersion: 0\n")
    yield Entry(f"{about}/entry_points.txt", 0o644, _ENTRY_POINTS.encode())
    yield Entry("usr/bin/parma", 0o755, _LAUNCHER.encode())


def _wheel_files() -> dict[Path, str]:
    """Where each file is, and its name beneath the folder of packages."""
    files = [(found, file) for found in map(distribution, _WHEELS) for file in found.files or ()]
    return {
        Path(str(found.locate_file(file))): str(file)
        for found, file in files
        if not {"..", "__pycache__"} & set(file.parts)
    }


def _folders(names: Iterable[str]) -> Iterator[Entry]:
    paths = {
        path for name in names for path in (Path(name.strip("/")), *Path(name.strip("/")).parents)
    }
    yield from (
        Entry(f"{path}/", 0o1777 if path.name == "tmp" else 0o755)
        for path in sorted(paths)
        if path.name
    )


def _tree(root: Path, place: str) -> Iterator[Entry]:
    for path in _files(root):
        yield Entry(f"{place}/{path.relative_to(root)}", 0o644, path.read_bytes())


def _files(root: Path) -> list[Path]:
    found = (
        path
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".a"
    )
    return sorted(path for path in found if not set(_LEFT_OUT) & set(path.relative_to(root).parts))
