"""The build's pure parts: lock file, ELF, modules, cpio, verity, mirrors, cache."""

from __future__ import annotations

import dataclasses
import hashlib
import lzma
import os
import struct
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
import zstandard
from uvmbuild import apt, cache, config, elf, initrd, kernel, lock, verity

DEB = lock.Deb("guest", "crun", "1:1.21-1~b+c", "a" * 64, 5, "debian", "pool/main/c/c/crun_1.deb")


def test_the_committed_lock_is_whole_and_in_its_own_form() -> None:
    text = (config.IMAGE_DIR / "debs.lock").read_text()
    parsed = lock.parse(text)
    assert lock.render(parsed) == text
    cfg = config.load()
    assert {deb.set_name for deb in parsed.debs} == set(cfg.sets)
    names = {(deb.set_name, deb.name) for deb in parsed.debs}
    for set_name in ("guest", "tools"):
        assert {(set_name, package) for package in cfg.sets[set_name]} <= names
    (only,) = parsed.of_set("kernel")
    assert only.name.startswith("linux-image-6.12")
    assert only.name.endswith("-cloud-amd64")


def test_lock_round_trip() -> None:
    made = lock.Lock("20260101T000000Z", (DEB,))
    assert lock.parse(lock.render(made)) == made


@pytest.mark.parametrize(
    "line",
    [
        "guest crun 1.21-1 " + "a" * 63 + " 5 debian pool/c.deb",
        "guest crun 1.21-1 " + "a" * 64 + " 5 debian http/pool/c.deb",
        "guest crun 1.21-1 " + "a" * 64 + " 5 debian pool/../../c.deb",
        "guest crun 1.21-1 " + "a" * 64 + " 5 other pool/c.deb",
        "guest crun " + "a" * 64 + " 5 debian pool/c.deb",
        "guest crun 1;2 " + "a" * 64 + " 5 debian pool/c.deb",
    ],
)
def test_a_bad_line_of_the_lock_is_named(line: str) -> None:
    with pytest.raises(config.BuildError, match="line 2"):
        lock.parse(f"# snapshot 20260101T000000Z\n{line}\n")


def test_a_lock_without_its_date_is_refused() -> None:
    with pytest.raises(config.BuildError, match="snapshot"):
        lock.parse("")


def test_mirrors_come_from_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARMA_DEB_MIRROR", raising=False)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("# deb http://old.invalid/debian x main\n")
    (tmp_path / "sources.list.d/a.sources").write_text(
        "URIs: http://one.invalid/debian\nSuites: x\n\nURIs: http://two.invalid/debian-security/\n"
    )
    (tmp_path / "sources.list.d/b.list").write_text("deb https://other.invalid/apt x main\n")
    found = apt.host_mirrors(tmp_path)
    assert found.bases == {
        "debian": "http://one.invalid/debian",
        "debian-security": "http://two.invalid/debian-security",
    }
    assert found.split("http://two.invalid/debian-security/pool/x.deb") == (
        "debian-security",
        "pool/x.deb",
    )
    with pytest.raises(config.BuildError, match="outside"):
        found.split("http://three.invalid/debian/pool/x.deb")
    monkeypatch.setenv("PARMA_DEB_MIRROR", "http://own.invalid/")
    assert apt.host_mirrors(tmp_path).bases["debian"] == "http://own.invalid/debian"


def test_no_mirror_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARMA_DEB_MIRROR", raising=False)
    with pytest.raises(config.BuildError, match="PARMA_DEB_MIRROR"):
        apt.host_mirrors(tmp_path)


def test_a_tool_that_fails_is_quoted() -> None:
    with pytest.raises(config.BuildError, match=r"failed \(3\): out of luck"):
        apt.run(
            [sys.executable, "-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)"]
        )


def test_needed_libraries_are_those_of_readelf() -> None:
    data = Path(sys.executable).resolve().read_bytes()
    told = subprocess.run(
        ["readelf", "-d", Path(sys.executable).resolve()],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [line.split("[")[1][:-1] for line in told.stdout.splitlines() if "(NEEDED)" in line]
    assert expected
    assert elf.needed(data) == expected


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100)])
def test_what_is_no_elf_needs_nothing(data: bytes) -> None:
    assert elf.needed(data) == []


def signed(body: bytes, signature: bytes) -> bytes:
    info = bytes(8) + struct.pack(">I", len(signature))
    return body + signature + info + b"~Module signature appended~\n"


def test_a_signature_is_cut_off_whole() -> None:
    assert kernel.strip_signature(signed(b"module", b"s" * 700)) == b"module"
    assert kernel.strip_signature(b"module") == b"module"


def module_tree(folder: Path, modules: dict[str, str], builtin: str = "") -> kernel.ModuleTree:
    for name, depends in modules.items():
        data = b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"
        (folder / f"{name}.ko.xz").write_bytes(lzma.compress(signed(data, b"s" * 9)))
    (folder / "modules.builtin").write_text(builtin)
    return kernel.ModuleTree(folder)


def test_modules_are_ordered_by_what_they_need(tmp_path: Path) -> None:
    found = module_tree(
        tmp_path,
        {"dm-mod": "", "dm-bufio": "dm-mod", "dm-verity": "dm-bufio,dm-mod,crypto", "alone": ""},
        "kernel/crypto/crypto.ko\n",
    ).closure(["dm_verity", "crypto"], keep_signatures=False)
    assert [(m.level, m.name) for m in found] == [(0, "dm_mod"), (1, "dm_bufio"), (2, "dm_verity")]
    assert all(m.data.endswith(b"name=x\0") for m in found)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.BuildError, match="no module absent"):
        module_tree(tmp_path, {"a": "absent"}).closure(["a"], keep_signatures=True)


def test_vmlinux_is_found_behind_other_frames() -> None:
    pack = zstandard.ZstdCompressor().compress
    image = b"setup" + pack(b"not it") + b"\x28\xb5\x2f\xfdjunk" + pack(b"\x7fELF kernel") + b"tail"
    assert kernel.extract_vmlinux(image) == b"\x7fELF kernel"
    with pytest.raises(config.BuildError, match="no zstd"):
        kernel.extract_vmlinux(b"setup" + pack(b"not it"))


def test_the_initrd_is_what_cpio_reads(tmp_path: Path) -> None:
    modules = [kernel.Module(0, "a", b"x" * 5), kernel.Module(1, "b", b"y")]
    data = initrd.archive(initrd.contents(b"#!", modules))
    listed = subprocess.run(
        ["cpio", "-it", "--quiet"], input=data, capture_output=True, check=True
    ).stdout.decode()
    assert listed.split() == [
        *("dev", "dev/console", "init", "modules", "modules/a.ko", "modules/b.ko", "modules/list"),
    ]
    (tmp_path / "x").mkdir()
    subprocess.run(
        ["cpio", "-i", "-d", "--quiet", "modules/*"], input=data, cwd=tmp_path / "x", check=True
    )
    assert (tmp_path / "x/modules/list").read_text() == "0 /modules/a.ko\n1 /modules/b.ko\n"
    assert (tmp_path / "x/modules/a.ko").read_bytes() == b"x" * 5


GOLDEN_ROOTS = {  # reference: data block i is 512 times the u64 i, salt of 32 zero bytes
    2: "8255fd6a8013794f561bc1933adfe8f311a0507d1781f58ee137dce63001bf7e",
    128: "9a582a39e824119bc004fd42db485d140b24f09399b21687318a318d771e3d1d",
    129: "1cc2c43785d621dce791947b8066c8da2ca22670b7bccde296d3d5916a67b37f",
    16385: "9ed8303c14019c0afdc28c8dec4bdad79a164f62ef8c98855e1e597610b9aa13",
}


@pytest.mark.parametrize("blocks", GOLDEN_ROOTS)
def test_verity_roots(blocks: int) -> None:
    data = b"".join(struct.pack("<Q", i) * 512 for i in range(blocks))
    assert verity.tree(data)[0].hex() == GOLDEN_ROOTS[blocks]


def test_verity_is_veritysetups_byte_for_byte(tmp_path: Path) -> None:
    uuid = UUID("8d3a1c9e-2b64-4c0f-9a57-6d61726d6101")
    data = os.urandom(300 * 4096 - 7)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(data)
    theirs.write_bytes(data + bytes(7))
    opened = verity.append(ours, uuid)
    told = subprocess.run(
        [
            *("veritysetup", "format", "--uuid", str(uuid), "--salt", opened.salt),
            *("--data-block-size", "4096", "--hash-block-size", "4096"),
            *("--hash-offset", str(300 * 4096), "--data-blocks", "300", theirs, theirs),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert opened.blocks == 300
    assert opened.root in told
    assert opened.parameter == f"300,{opened.root},{'0' * 64}"
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_digest_sees_names_modes_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")
    (tmp_path / "a/__pycache__").mkdir()
    seen = set()
    for change in ("", "content", "mode", "name", "extra", "cache"):
        if change == "content":
            (tmp_path / "a/x").write_text("2")
        if change == "mode":
            (tmp_path / "a/x").chmod(0o755)
        if change == "name":
            (tmp_path / "a/x").rename(tmp_path / "a/y")
        if change == "cache":
            (tmp_path / "a/__pycache__/x.pyc").write_text("not an input")
        extra = ("more",) if change in {"extra", "cache"} else ()
        seen.add(cache.digest_files(cache.source_files(tmp_path / "a"), tmp_path, *extra))
    assert len(seen) == 5


def test_a_result_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "results/one"
    with pytest.raises(FileNotFoundError), cache.fresh(target) as made:
        (made / "no folder" / "file").write_text("")
    assert list((tmp_path / "results").iterdir()) == []
    with cache.fresh(target) as made:
        (made / "whole").write_text("")
    assert (target / "whole").exists()
    cache.point(target.with_name("current"), target)
    assert target.with_name("current").readlink() == Path("one")
    for number in range(5):
        with cache.fresh(target.with_name(f"other{number}")):
            pass
    cache.prune(target.parent, target)
    left = {path.name for path in target.parent.iterdir()}
    assert {"one", "current"} < left
    assert len(left) <= cache.KEEP + 2


def store_of(folder: Path, archive: str, data: bytes) -> lock.Deb:
    """A package in an archive on disk, and its line of the lock."""
    path = folder / archive / DEB.path
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return dataclasses.replace(DEB, sha256=digest, size=len(data))


def test_packages_come_from_the_mirror_and_else_from_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deb = store_of(tmp_path / "mirror", "debian", b"a package")
    moved = store_of(tmp_path / "service/archive", "debian/20260101T000000Z", b"an old one")
    monkeypatch.setenv("PARMA_DEB_MIRROR", f"copy:{tmp_path}/mirror")
    locked = lock.Lock("20260101T000000Z", (deb, dataclasses.replace(moved, name="old")))
    with pytest.raises(config.BuildError, match=r"1 locked packages .*old 1:1\.21.*SNAPSHOT"):
        apt.fetch(locked, tmp_path / "store")
    assert (tmp_path / "store" / deb.file_name).read_bytes() == b"a package"
    monkeypatch.setenv("PARMA_DEB_SNAPSHOT", f"copy:{tmp_path}/service/")
    apt.fetch(locked, tmp_path / "store")
    assert (tmp_path / "store" / moved.file_name).read_bytes() == b"an old one"


def test_another_package_under_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deb = store_of(tmp_path / "mirror", "debian", b"a package")
    (tmp_path / "mirror/debian" / deb.path).write_bytes(b"b package")
    monkeypatch.setenv("PARMA_DEB_MIRROR", f"copy:{tmp_path}/mirror")
    monkeypatch.delenv("PARMA_DEB_SNAPSHOT", raising=False)
    with pytest.raises(config.BuildError, match="could not be had"):
        apt.fetch(lock.Lock("20260101T000000Z", (deb,)), tmp_path / "store")
    assert list((tmp_path / "store").glob("*.deb")) == []
