"""What is in the two images, and what must not be (K19, K20)."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import time
from pathlib import Path

import pytest
from uvmbuild import config

from tests.image.conftest import run_build

pytestmark = [pytest.mark.vm, pytest.mark.root]
STUB_ONLY = ("usr/lib/parma/parma_guest/stub", "usr/lib/parma/modules/cuse.ko")


def names(images: dict[str, Path], variant: str) -> set[str]:
    return set((images[variant] / "root.files").read_text().splitlines())


def test_the_release_image_has_no_stub_and_no_cuse(images: dict[str, Path]) -> None:
    stub, release = names(images, "stub"), names(images, "release")
    more = {name for name in stub - release if not name.startswith(STUB_ONLY)}
    assert more == set()
    assert release - stub == set()
    assert "usr/lib/parma/modules/cuse.ko" in stub
    assert any(name.startswith(STUB_ONLY[0]) for name in stub)
    assert not [name for name in release if "stub" in name.split("/") or "cuse" in name]


def test_the_lists_are_of_what_is_there(images: dict[str, Path], roots: dict[str, Path]) -> None:
    for variant, root in roots.items():
        found = {str(path.relative_to(root)) for path in root.rglob("*")}
        assert found - {"dev/null"} == names(images, variant)


def test_nothing_of_the_release_root_mentions_the_stub_device(roots: dict[str, Path]) -> None:
    listed = (roots["release"] / "usr/lib/parma/modules.list").read_text()
    assert "cuse" not in listed
    assert "cuse " in (roots["stub"] / "usr/lib/parma/modules.list").read_text()


def test_no_shell_no_package_manager_no_host_code(images: dict[str, Path]) -> None:
    for variant in images:
        programs = {n for n in names(images, variant) if n.startswith(("usr/bin/", "usr/sbin/"))}
        assert programs == {
            *("usr/bin/crun", "usr/bin/opa", "usr/bin/python3", "usr/bin/python3.13"),
            *("usr/sbin/ldconfig", "usr/sbin/mke2fs", "usr/sbin/mkfs.ext4"),
        }
        ours = {n.split("/")[3] for n in names(images, variant) if n.startswith("usr/lib/parma/")}
        assert ours == {
            *("__pycache__", "agent.py", "modules", "modules.list", "parma_api", "parma_guest"),
            "site",
        }


def test_every_module_of_python_is_compiled_and_never_checked_again(
    roots: dict[str, Path],
) -> None:
    for root in roots.values():
        for place in ("usr/lib/python3.13", "usr/lib/parma"):
            sources = [path for path in (root / place).rglob("*.py") if not path.is_symlink()]
            assert len(sources) > 50
            for source in sources:
                compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
                flags = compiled.read_bytes()[4:8]
                assert flags == b"\x01\0\0\0", compiled  # hash-based, unchecked (PEP 552)


def imports_of(path: Path, home: Path) -> set[str]:
    """The parma modules that a file imports anywhere, also inside functions."""
    package = path.relative_to(home).parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import name`: the name may be a module of its own.
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names if node.level}
    return {name for name in found if name.split(".")[0] in ("parma_api", "parma_guest")}


def is_there(home: Path, module: str) -> bool:
    place = home / module.replace(".", "/")
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def test_no_file_imports_what_was_left_out(repository: Path, roots: dict[str, Path]) -> None:
    for variant, root in roots.items():
        home = root / "usr/lib/parma"
        for source in [*(home / "parma_api").rglob("*.py"), *(home / "parma_guest").rglob("*.py")]:
            for module in imports_of(source, home):
                checkout = repository / ("api" if module.startswith("parma_api") else "guest")
                if is_there(home, module) or not is_there(checkout, module):
                    continue  # present, or the name of something that is no module
                # What the release leaves out may be named there, and is never reached.
                stub = variant == "release" and module.startswith("parma_guest.stub")
                assert stub, f"{source} imports {module}"


PACKAGES = (
    "aiohttp._http_parser asyncio betterproto cbor2 cryptography.hazmat.primitives.asymmetric.ec"
    " cryptography.x509 dateutil frozenlist._frozenlist grpclib multidict._multidict"
    " opa_client.opa_async propcache._helpers_c pyudev ssl yarl._quoting_c"
).split()


def test_the_guests_interpreter_imports_every_package(roots: dict[str, Path]) -> None:
    script = (
        "import sys; sys.path[:0] = ['/usr/lib/parma', '/usr/lib/parma/site']\n"
        + "".join(f"import {name}\n" for name in PACKAGES)
        + "pyudev.Context(); print('ok')"
    )
    for root in roots.values():
        done = subprocess.run(
            ["chroot", root, "/usr/bin/python3", "-I", "-S", "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == "ok", done.stderr


def test_what_the_agent_reads_first_is_there(roots: dict[str, Path]) -> None:
    for root in roots.values():
        listed = (root / "etc/prefetch").read_text().split()
        assert len(listed) == len(set(listed)) > 100
        assert "/usr/bin/python3.13" in listed
        assert any(
            name.endswith("betterproto/__pycache__/__init__.cpython-313.pyc") for name in listed
        )
        assert [name for name in listed if not (root / name.lstrip("/")).exists()] == []


def test_each_group_of_modules_brings_all_it_needs(roots: dict[str, Path]) -> None:
    cfg = config.load()
    for variant, root in roots.items():
        text = (root / "usr/lib/parma/modules.list").read_text()
        rows = [line.split() for line in text.splitlines()]
        assert {group for group, _, _ in rows} == set(cfg.variants[variant].groups)
        assert all((root / path.lstrip("/")).exists() for _, _, path in rows)
        signed = [
            (root / path.lstrip("/")).read_bytes().endswith(b"~Module signature appended~\n")
            for _, _, path in rows
        ]
        assert set(signed) == {variant == "release"}


def test_image_json_tells_the_truth(images: dict[str, Path], roots: dict[str, Path]) -> None:
    file_names = {"initrd": "initrd.img", "root": "root.img"}
    for variant, image in images.items():
        described = json.loads((image / "image.json").read_text())
        assert (described["format"], described["variant"]) == (1, variant)
        assert described["locked"] is True
        for key, entry in described["files"].items():
            data = (image / file_names.get(key, key)).read_bytes()
            assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        opa = (roots[variant] / "usr/bin/opa").read_bytes()
        assert described["opa_sha256"] == hashlib.sha256(opa).hexdigest()
        verity = described["verity"]
        wanted = f"parma.verity={verity['blocks']},{verity['root_hash']},{verity['salt']}"
        assert described["cmdline"].split()[-1] == wanted
        told = subprocess.run(
            [
                *("veritysetup", "verify", image / "root.img", image / "root.img"),
                *(verity["root_hash"], "--hash-offset", str(verity["blocks"] * 4096)),
            ],
            check=False,
        )
        assert told.returncode == 0
    release = json.loads((images["release"] / "image.json").read_text())["cmdline"]
    assert "module.sig_enforce=1" in release
    assert "mitigations" not in release
    assert "notests" not in release


def test_nothing_to_do_takes_no_time(script: Path, images: dict[str, Path]) -> None:
    started = time.monotonic()
    for variant, image in images.items():
        assert run_build(script, "--variant", variant) == image
    assert time.monotonic() - started < 4.0  # two commands, below two seconds each


def test_out_is_a_copy(script: Path, images: dict[str, Path], tmp_path: Path) -> None:
    arguments = ("--variant", "stub", "--out", str(tmp_path / "out"))
    assert run_build(script, *arguments) == tmp_path / "out"
    for path in images["stub"].iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_pause_reaps_and_ends(roots: dict[str, Path]) -> None:
    pause = roots["stub"] / "usr/libexec/parma/pause"
    # The shell leaves an orphan and becomes pause: the orphan is pause's to reap.
    script = f"(sleep 0.3 & echo started) ; exec {pause}"
    command = ["unshare", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        (first,) = children(process.pid)
        deadline = time.monotonic() + 20
        while children(first) or Path(f"/proc/{first}/comm").read_text() != "pause\n":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        subprocess.run(["kill", "-TERM", str(first)], check=True)
        assert process.wait(10) == 0


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
