"""The folder that a node gets: programs from Debian packages with their own loader and libraries, and Parma.

bin/       containerd-shim-parma-v2 and parma-node, scripts that start the payload's Python
python/    Python with its standard library, compiled
qemu/      QEMU with its modules and firmware
lib/       the loader, and the libraries of both
site/      Parma's host side and the packages that it needs
uvm/       the utility VM's images, by variant
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parma_shim.demo.debian import extract, library_closure

PYTHON = "3.11"
SUITE = "bookworm"
PREFIX = "opt/parma/versions"
"""Where versions lie, in the image and on the node: programs and libraries find each other by this path."""
_PACKAGES = (f"python{PYTHON}", "qemu-system-x86", "seabios")
PROGRAMS = (f"python/bin/python{PYTHON}", "qemu/usr/bin/qemu-system-x86_64")
_QEMU_MODULES = ("accel-tcg-x86_64.so",)
_FIRMWARE = ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "multiboot_dma.bin", "pvh.bin")
_NOT_NEEDED = (
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "__pycache__",
)
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")
_LOADER = "ld-linux-x86-64.so.2"
_OURS = ("api/parma_api", "shim/parma_shim")
_TRIPLET = "usr/lib/x86_64-linux-gnu"


class PayloadError(Exception):
    """The payload cannot be put together; one line."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that decides the payload's bytes, but for the archive's state of the Debian packages."""

    tree: Path
    lock: Path
    uvm: Mapping[str, Path]
    version: str
    """A digest, 16 digits, taken once: the tree may change while the payload is made."""

    @classmethod
    def read(cls, tree: Path, lock: Path, uvm: Mapping[str, Path], mark: str = "") -> Inputs:
        """`mark` makes another version of the same content. Raises OSError."""
        sources = [path for name in _OURS for path in (tree / name).rglob("*") if _is_source(path)]
        total = hashlib.sha256(mark.encode())
        for path in sorted([lock, *Path(__file__).parent.glob("*.py"), *sources]):
            total.update(f"{path.name}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
        for name, folder in sorted(uvm.items()):
            description = (folder / "image.json").read_bytes()
            total.update(name.encode() + hashlib.sha256(description).digest())
        return cls(tree, lock, uvm, total.hexdigest()[:16])

    @property
    def place(self) -> str:
        """The payload's absolute path on a node."""
        return f"/{PREFIX}/{self.version}"


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def debian_packages(home: Path) -> Path:
    """The packages, unpacked; kept in `home`, since they change seldom and Parma often. Raises InternalError."""
    key = hashlib.sha256(repr((_PACKAGES, SUITE)).encode()).hexdigest()[:16]
    folder = home / f"debian-{key}"
    if not folder.exists():
        part = Path(tempfile.mkdtemp(dir=home, prefix="debian-part-"))
        extract(_PACKAGES, SUITE, part / "root")
        (part / "root").rename(folder)
        part.rmdir()
    return folder


def assemble(inputs: Inputs, debian: Path, root: Path) -> None:
    """Makes the payload beneath `root`. Raises PayloadError, OSError, CalledProcessError."""
    if shutil.which("patchelf") is None:
        raise PayloadError("patchelf is missing: apt install patchelf")
    target = root / inputs.place.lstrip("/")
    target.mkdir(parents=True)
    _copy_python(debian, target / "python")
    _copy_qemu(debian, target / "qemu")
    _copy_libraries(debian, target)
    for program in PROGRAMS:
        _relocate(target / program, inputs.place)
    _install_packages(inputs, target / "site")
    _compile(target)
    for variant, image in inputs.uvm.items():
        shutil.copytree(image, target / "uvm" / variant)
    _write_scripts(inputs, target / "bin")


def _copy_python(debian: Path, target: Path) -> None:
    name = f"python{PYTHON}"
    (target / "bin").mkdir(parents=True)
    shutil.copy2(debian / "usr/bin" / name, target / "bin" / name)
    library = target / "lib" / name
    skipped = shutil.ignore_patterns(*_NOT_NEEDED, "*.a", "config-*")
    shutil.copytree(
        debian / "usr/lib" / name,
        library,
        symlinks=False,
        ignore=skipped,
        ignore_dangling_symlinks=True,
    )


def _copy_qemu(debian: Path, target: Path) -> None:
    """In QEMU's own layout: it finds modules and firmware relative to its program."""
    (target / "usr/bin").mkdir(parents=True)
    shutil.copy2(debian / "usr/bin/qemu-system-x86_64", target / "usr/bin/")
    modules = target / _TRIPLET / "qemu"
    modules.mkdir(parents=True)
    for name in _QEMU_MODULES:
        shutil.copy2(debian / _TRIPLET / "qemu" / name, modules / name)
    firmware = target / "usr/share/qemu"
    firmware.mkdir(parents=True)
    for name in _FIRMWARE:
        found = [
            folder / name for folder in (debian / "usr/share/qemu", debian / "usr/share/seabios")
        ]
        shutil.copy2(next(path for path in found if path.exists()), firmware / name)


def _copy_libraries(debian: Path, target: Path) -> None:
    library = target / "lib"
    library.mkdir()
    own = {str(target / name) for name in PROGRAMS}
    own |= {str(path) for path in target.rglob("*.so")}
    for name, path in library_closure(debian, sorted(own)).items():
        shutil.copy2(path, library / name)
    loader = next(
        path
        for path in (debian / "lib64" / _LOADER, debian / "usr/lib64" / _LOADER)
        if path.exists()
    )
    shutil.copy2(loader, library / _LOADER)


def _relocate(program: Path, place: str) -> None:
    """DT_RPATH, not DT_RUNPATH: it counts for the libraries that a program opens later, too."""
    command = ["patchelf", "--set-interpreter", f"{place}/lib/{_LOADER}"]
    subprocess.run(
        [*command, "--force-rpath", "--set-rpath", f"{place}/lib", str(program)], check=True
    )


def _install_packages(inputs: Inputs, site: Path) -> None:
    site.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes"]
        command += [
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "--implementation",
            "cp",
        ]
        command += [
            "--python-version",
            PYTHON,
            *(word for tag in _PLATFORMS for word in ("--platform", tag)),
        ]
        subprocess.run(
            [*command, "-d", folder, "-r", str(inputs.lock)], check=True, stdout=sys.stderr
        )
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as packed:
                names = [
                    name for name in packed.namelist() if ".data/" not in name and ".." not in name
                ]
                packed.extractall(site, names)
    for name in _OURS:
        source = inputs.tree / name
        shutil.copytree(source, site / source.name, ignore=shutil.ignore_patterns("__pycache__"))


def _compile(target: Path) -> None:
    """With the payload's Python, started by its loader: it is not at its own path yet."""
    python = [
        target / "lib" / _LOADER,
        "--library-path",
        target / "lib",
        target / PROGRAMS[0],
    ]
    options = ["-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    strip = ["-s", str(target), "-p", "/"]
    folders = [target / "site", target / "python/lib" / f"python{PYTHON}"]
    subprocess.run(
        [str(word) for word in (*python, *options, *strip, *folders)], check=True, stdout=sys.stderr
    )


_SCRIPT = """\
#!{place}/python/bin/python{python} -IS
import os, sys
sys.path[:0] = [{place!r} + "/site"]
os.environ.setdefault("PARMA_QEMU", {place!r} + "/qemu/usr/bin/qemu-system-x86_64")
os.environ.setdefault("PARMA_UVM", {place!r} + "/uvm/{variant}")
from {module} import main
sys.exit(main(sys.argv[1:]))
"""


def _write_scripts(inputs: Inputs, folder: Path) -> None:
    folder.mkdir()
    variant = "release" if "release" in inputs.uvm else "stub"
    modules = {
        "containerd-shim-parma-v2": "parma_shim.lifecycle.command",
        "parma-node": "parma_shim.node.command",
    }
    for name, module in modules.items():
        text = _SCRIPT.format(place=inputs.place, python=PYTHON, variant=variant, module=module)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
