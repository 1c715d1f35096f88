"""From locked inputs to one image: tools, Debian part, agent, files, description.

Every stage is kept by the digest of its inputs: a change of the agent's Python repeats the last
stage only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from . import apt, cache, initrd, root, tools, verity, wheels
from .config import IMAGE_DIR, TREE, BuildError, Config, Variant
from .kernel import ModuleTree, extract_vmlinux
from .lock import Lock

FORMAT = 1
FILE_NAMES = {
    "vmlinux": "vmlinux",
    "bzImage": "bzImage",
    "initrd": "initrd.img",
    "root": "root.img",
}
"""Key in image.json -> file beside it; `parma_api.launch` reads the same."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one image is made of."""

    config: Config
    variant: Variant
    lock: Lock
    lock_digest: str
    locked: bool
    opa: Path
    agent_source: Path | None
    home: Path

    @property
    def store(self) -> Path:
        """Downloaded packages, by content."""
        return self.home / "debs"


def say(text: str) -> None:
    """Progress, for whoever waits."""
    sys.stderr.write(f"uvm: {text}\n")


def _recipe() -> list[Path]:
    return cache.source_files(IMAGE_DIR / "uvmbuild", IMAGE_DIR / "image.toml")


def input_digest(inputs: Inputs) -> str:
    """The name of the result: nothing that could change the image is left out."""
    guest = inputs.agent_source or TREE / "guest"
    ours = cache.source_files(
        TREE / "api/parma_api", TREE / "policy_bundles", TREE / "guest/image", guest / "parma_guest"
    )
    base = guest if inputs.agent_source else TREE
    known = [path for path in ours if path.is_relative_to(TREE)]
    foreign = [path for path in ours if not path.is_relative_to(TREE)]
    return cache.digest_files(
        known,
        TREE,
        cache.digest_files(foreign, base),
        inputs.variant.name,
        inputs.lock_digest,
        inputs.opa.parent.name
        if inputs.opa.parent.name != "opa"
        else cache.file_digest(inputs.opa),
    )[:32]


def _tools(inputs: Inputs) -> Path:
    debs = inputs.lock.of_set("tools")
    recipe = [IMAGE_DIR / "uvmbuild" / name for name in ("apt.py", "tools.py")]
    key = cache.digest_files(recipe, TREE, *(deb.sha256 for deb in debs))[:32]
    target = inputs.home / "tools" / key
    if not target.exists():
        say("unpacking the compiler and mkfs")
        with cache.fresh(target) as made:
            apt.unpack(debs, inputs.store, made, inputs.config)
            tools.finish_tree(made)
        cache.prune(target.parent, target)
    return target


def _base(inputs: Inputs) -> Path:
    """`root`, the Debian part of the root, and `kernel`, the unpacked package; for both variants."""
    requirements = IMAGE_DIR / "requirements.lock"
    key = cache.digest_files([*_recipe(), requirements], TREE, inputs.lock_digest)[:32]
    target = inputs.home / "base" / key
    if not target.exists():
        say("making the Debian part of the root")
        pinned = cache.file_digest(requirements)[:32]
        found = wheels.fetch(requirements, inputs.home / "wheels" / pinned)
        with cache.fresh(target) as made:
            wheels.unpack(found, made / "root" / root.PARMA / "site")
            apt.unpack(inputs.lock.of_set("guest"), inputs.store, made / "debian", inputs.config)
            root.make_base(made / "debian", made / "root", inputs.config)
            shutil.rmtree(made / "debian")
            apt.unpack_alone(inputs.lock.of_set("kernel"), inputs.store, made / "kernel")
        cache.prune(target.parent, target)
    return target


def _make_root(inputs: Inputs, base: Path, init: bytes, modules: ModuleTree, target: Path) -> None:
    variant = inputs.variant
    shutil.copytree(base / "root", target, symlinks=True)
    shutil.copy(inputs.opa, target / "usr/bin/opa")
    pause = target / "usr/libexec/parma/pause"
    pause.parent.mkdir(parents=True)
    pause.write_bytes(init)
    pause.chmod(0o755)
    keep = variant.keep_signatures
    in_initrd = {
        m.name for m in modules.closure(inputs.config.initrd_modules, keep_signatures=keep)
    }
    groups = {
        group: [m for m in modules.closure(names, keep_signatures=keep) if m.name not in in_initrd]
        for group, names in variant.groups.items()
    }
    root.add_modules(target, groups)
    root.add_agent(target, variant, inputs.config, inputs.agent_source)
    root.add_prefetch(target)
    root.normalise(target)
    (target / "tmp").chmod(0o1777)
    (target / "root").chmod(0o700)


def _agent_digest(tree: Path) -> str:
    return cache.digest_files(root.agent_files(tree), tree)


def _describe(inputs: Inputs, out: Path, release: str, tree: Path, opened: verity.Verity) -> None:
    files = {
        key: {"sha256": cache.file_digest(out / name), "size": (out / name).stat().st_size}
        for key, name in FILE_NAMES.items()
    }
    described = {
        "format": FORMAT,
        "variant": inputs.variant.name,
        "kernel_version": release,
        "cmdline": f"{inputs.variant.cmdline} parma.verity={opened.parameter}",
        "verity": {"blocks": opened.blocks, "root_hash": opened.root, "salt": opened.salt},
        "files": files,
        "opa_sha256": cache.file_digest(tree / "usr/bin/opa"),
        "agent_sha256": _agent_digest(tree),
        "lock_sha256": inputs.lock_digest,
        "locked": inputs.locked,
    }
    (out / "image.json").write_text(json.dumps(described, indent=2) + "\n")


def _file_list(tree: Path) -> str:
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    return "".join(f"{name}\n" for name in names)


def _make_image(inputs: Inputs, out: Path, work: Path) -> None:
    tool_tree, base = _tools(inputs), _base(inputs)
    release_folder = next((base / "kernel/usr/lib/modules").iterdir())
    release = release_folder.name
    modules = ModuleTree(release_folder)
    init = tools.compile_init(tool_tree, IMAGE_DIR / "init")
    bzimage = (base / f"kernel/boot/vmlinuz-{release}").read_bytes()
    (out / "bzImage").write_bytes(bzimage)
    (out / "vmlinux").write_bytes(extract_vmlinux(bzimage))
    keep = inputs.variant.keep_signatures
    first = modules.closure(inputs.config.initrd_modules, keep_signatures=keep)
    (out / "initrd.img").write_bytes(initrd.archive(initrd.contents(init, first)))
    tree = work / "root"
    say("adding the agent")
    _make_root(inputs, base, init, modules, tree)
    say("writing the root image")
    tools.make_erofs(tool_tree, tree, out / "root.img", inputs.config)
    opened = verity.append(out / "root.img", UUID(inputs.config.uuid))
    (out / "root.files").write_text(_file_list(tree))
    _describe(inputs, out, release, tree, opened)


def build(inputs: Inputs) -> Path:
    """The folder with the image, made now if these inputs were never used before."""
    # An image of another agent is a test's own business: `<variant>/current` is the repository's.
    kind = inputs.variant.name + ("" if inputs.agent_source is None else "-other")
    target = inputs.home / kind / input_digest(inputs)
    link = target.with_name("current")
    if not (target / "image.json").exists():
        with cache.locked(inputs.home):
            if not (target / "image.json").exists():
                say(f"building the {inputs.variant.name} image")
                apt.fetch(inputs.lock, inputs.store)
                with cache.fresh(target) as made:
                    work = made.parent / "work"
                    work.mkdir()
                    _make_image(inputs, made, work)
                    root.normalise(made)
                cache.prune(target.parent, target)
    if not link.is_symlink() or link.readlink().name != target.name:
        cache.point(link, target)
    return target


def export(result: Path, out: Path) -> None:
    """Copies the image to a folder of the caller's."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(result.iterdir()):
        fresh = out / f".{path.name}"
        shutil.copy(path, fresh)
        fresh.replace(out / path.name)


def lock_digest(text: str, requirements: Path) -> str:
    """The digest of both lock files."""
    if not requirements.exists():
        raise BuildError(f"{requirements} is missing; make it with --refresh-lock")
    return hashlib.sha256(text.encode() + requirements.read_bytes()).hexdigest()
