#!/usr/bin/env python3
"""Builds the utility VM's images, or renews the lists of what they are made of.

    build.py --variant stub|release|both [--out DIR]   prints the folder of the image
    build.py --refresh-lock                            renews debs.lock and requirements.lock

An image is a folder: `image.json` (read by `parma_api.launch`), the kernel twice (vmlinux for PVH,
bzImage for OVMF), initrd.img, root.img, and for readers root.files: the names in the root. Results
are kept outside the tree, in `${PARMA_CACHE:-~/.cache/parma}/uvm/<variant>/<digest of inputs>/`;
`<variant>/current` is a symbolic link to the newest. Needs root (chroot), mmdebstrap and apt.
"""

# ruff: noqa: T201 (a build script talks on the terminal)
from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from uvmbuild import apt, assemble, config, lock, wheels
from uvmbuild.config import IMAGE_DIR, TREE, BuildError

DEBS = IMAGE_DIR / "debs.lock"
REQUIREMENTS = IMAGE_DIR / "requirements.lock"


def refresh_lock() -> None:
    """Resolves every name anew and writes both lock files."""
    found = apt.resolve(config.load(), apt.host_mirrors())
    DEBS.write_text(lock.render(found))
    wheels.compile_lock(IMAGE_DIR / "requirements.in", REQUIREMENTS)
    print(f"debs.lock: {len(found.debs)} packages, {found.snapshot}", file=sys.stderr)


def build_opa() -> Path:
    """The path of the pinned OPA, built if need be."""
    command = [sys.executable, str(TREE / ".ci/opa/build.py")]
    return Path(
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    )


def read_lock(cfg: config.Config, *, unlocked: bool) -> tuple[lock.Lock, str]:
    """The packages to use, and their text."""
    if not unlocked:
        text = DEBS.read_text()
        return lock.parse(text), text
    print(
        "uvm: UNLOCKED BUILD: today's packages of the archive, not those of debs.lock.",
        file=sys.stderr,
    )
    print("uvm: nobody can rebuild this image, and no known measurement is its.", file=sys.stderr)
    found = apt.resolve(cfg, apt.host_mirrors())
    return found, "\n".join(lock.render(found).splitlines()[3:])  # without the time of the look


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=("stub", "release", "both"), default="both")
    parser.add_argument("--out", type=Path, help="copy the image here (with `both`: DIR/<variant>)")
    parser.add_argument(
        "--refresh-lock", action="store_true", help="renew debs.lock and requirements.lock"
    )
    parser.add_argument(
        "--unlocked", action="store_true", help="use today's packages, not the lock's"
    )
    parser.add_argument("--agent-source", type=Path, help="folder with another parma_guest (tests)")
    parser.add_argument("--opa", type=Path, help="another OPA binary (tests)")
    return parser.parse_args()


def main() -> int:
    """Runs the command; 0 done, 1 failed."""
    arguments = parse_arguments()
    try:
        if arguments.refresh_lock:
            refresh_lock()
            return 0
        cfg = config.load()
        found, text = read_lock(cfg, unlocked=arguments.unlocked)
        opa = arguments.opa or build_opa()
        for name in ("stub", "release") if arguments.variant == "both" else (arguments.variant,):
            inputs = assemble.Inputs(
                config=cfg,
                variant=cfg.variants[name],
                lock=found,
                lock_digest=assemble.lock_digest(text, REQUIREMENTS),
                locked=not arguments.unlocked,
                opa=opa.resolve(),
                agent_source=arguments.agent_source and arguments.agent_source.resolve(),
                home=config.cache_dir() / "uvm",
            )
            result = assemble.build(inputs)
            if arguments.out is not None:
                out = arguments.out / name if arguments.variant == "both" else arguments.out
                assemble.export(result, out)
                result = out
            print(result)
    except (BuildError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
