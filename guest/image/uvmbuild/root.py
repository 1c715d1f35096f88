"""The root file system: what is taken from Debian and the wheels, then the agent on top.

The Debian part is slow and seldom changes, so it is made first and kept; see `build.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .apt import run
from .config import TREE, BuildError, Config, Variant
from .elf import needed
from .kernel import Module

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LIBRARY_PLACES = (_LIBRARIES, "usr/lib64", "usr/lib")
_LOADER = "ld-linux-x86-64.so.2"
PARMA = "usr/lib/parma"
_STDLIB = "usr/lib/python3.13"
# The modules that run at import time, in import order; `sys.modules` keeps it.
_LIST_IMPORTS = """
import sys
sys.argv[:] = ["agent"]
sys.path[:0] = ["/usr/lib/parma", "/usr/lib/parma/site"]
import asyncio, betterproto
if {agent}:
    import parma_guest.__main__
for module in list(sys.modules.values()):
    spec = getattr(module, "__spec__", None)
    path = spec and (spec.cached or spec.origin)
    if path and path.startswith("/"):
        print(path)
"""


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _drop(folder: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _site(site: Path, config: Config) -> None:
    _drop(site, config.site_drop)
    for info in site.glob("*.dist-info"):
        if info.name.split("-")[0] not in config.keep_dist_info:
            shutil.rmtree(info)


def _libraries(root: Path, debian: Path, config: Config) -> None:
    """Copies every shared library that something in the root needs, and what those need."""
    found: set[str] = set()
    queue = [*config.dlopen, _LOADER]
    bundled = {path.name for path in root.rglob("*.so*")}
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix not in {".py", ".pyc"}:
            queue += needed(path.read_bytes())
    while queue:
        name = queue.pop()
        if name in found or name in bundled:
            continue
        found.add(name)
        source = next((p for d in _LIBRARY_PLACES if (p := debian / d / name).exists()), None)
        if source is None:
            raise BuildError(
                f"nothing in the Debian tree brings {name}; add its package to image.toml"
            )
        place = "usr/lib64" if name == _LOADER else _LIBRARIES
        _copy(source.resolve(), root / place / name)
        queue += needed(source.read_bytes())


def compile_python(root: Path, *folders: str) -> None:
    """Byte-compiles with the guest's own interpreter; the kernel's verity vouches for freshness."""
    python = ["chroot", str(root), "/usr/bin/python3.13", "-I", "-S"]
    # -B and -f: what compileall itself imports would be left with time stamps, and then be skipped.
    command = [*python, "-B", "-m", "compileall", "-q", "-f", "-j1"]
    run([*command, "--invalidation-mode", "unchecked-hash", *(f"/{f}" for f in folders)])


def make_base(debian: Path, root: Path, config: Config) -> None:
    """The part of the root that no source file of ours enters; `root` holds the wheels already."""
    for name in config.directories:
        (root / name).mkdir(parents=True, exist_ok=True)
    for path in config.take:
        _copy(debian / path, root / path)
    _drop(root / _STDLIB, config.python_drop)
    _site(root / PARMA / "site", config)
    (root / "usr/lib64").mkdir(exist_ok=True)
    for name, target in config.links.items():
        (root / name).symlink_to(target)
    for name, text in config.files.items():
        (root / name).write_text(text)
    _libraries(root, debian, config)
    run(["chroot", str(root), "/usr/sbin/ldconfig", "-i", "-X"])
    compile_python(root, _STDLIB, f"{PARMA}/site")


def _group_lines(groups: Mapping[str, Sequence[Module]]) -> str:
    return "".join(
        f"{group} {module.level} /{PARMA}/modules/{module.name}.ko\n"
        for group, modules in groups.items()
        for module in modules
    )


def add_modules(root: Path, groups: Mapping[str, Sequence[Module]]) -> None:
    """The kernel modules that the agent loads, and the list of them by group."""
    folder = root / PARMA / "modules"
    folder.mkdir()
    for module in (m for modules in groups.values() for m in modules):
        (folder / f"{module.name}.ko").write_bytes(module.data)
    (root / PARMA / "modules.list").write_text(_group_lines(groups))


def add_agent(root: Path, variant: Variant, config: Config, source: Path | None) -> None:
    """The agent's Python, its launcher and the policy framework.

    `source` replaces this repository's parma_guest: a folder that holds one.
    """
    home = root / PARMA
    _copy(TREE / "guest/image/agent.py", home / "agent.py")
    _copy(TREE / "api/parma_api", home / "parma_api")
    _copy((source or TREE / "guest") / "parma_guest", home / "parma_guest")
    _drop(home / "parma_api", config.drop_api)
    _drop(home / "parma_guest", variant.drop_guest)
    for package in ("parma_api", "parma_guest"):
        _drop(home / package, ("**/py.typed", "**/*.proto", "**/*.md"))
    bundle = root / "usr/share/parma/bundle"
    _copy(TREE / "policy_bundles", bundle)
    _drop(bundle, config.drop_bundle)
    compile_python(root, f"{PARMA}/agent.py", f"{PARMA}/parma_api", f"{PARMA}/parma_guest")


def agent_files(root: Path) -> list[Path]:
    """The files that make up the agent, for its digest."""
    home = root / PARMA
    folders = (home / "parma_api", home / "parma_guest")
    inside = [p for f in folders for p in f.rglob("*.py") if "__pycache__" not in p.parts]
    return sorted([home / "agent.py", *inside])


def add_prefetch(root: Path) -> None:
    """The list of files that the agent reads before its first answer, found by importing it here."""
    has_agent = (root / PARMA / "parma_guest/__main__.py").exists()
    script = _LIST_IMPORTS.format(agent=has_agent)
    imported = run(["chroot", str(root), "/usr/bin/python3.13", "-I", "-S", "-B", "-c", script])
    paths = list(dict.fromkeys(imported.split()))
    extensions = [p for p in paths if p.endswith(".so")]
    libraries: dict[str, None] = {}
    queue = [root / "usr/bin/python3.13", *(root / p.lstrip("/") for p in extensions)]
    while queue:
        for name in needed(queue.pop(0).read_bytes()):
            library = root / _LIBRARIES / name
            if library.exists() and f"/{_LIBRARIES}/{name}" not in libraries:
                libraries[f"/{_LIBRARIES}/{name}"] = None
                queue.append(library)
    first = ["/usr/bin/python3.13", f"/usr/lib64/{_LOADER}"]
    text = "\n".join([*first, *libraries, f"/{PARMA}/agent.py", *paths]) + "\n"
    (root / "etc/prefetch").write_text(text)


def normalise(tree: Path) -> None:
    """Sets modes to 755 or 644: what a umask left must not enter an image, nor keep readers out."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)
