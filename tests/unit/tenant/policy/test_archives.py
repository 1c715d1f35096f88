"""Images from archives and folders, good and hostile."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parma_api.layer import convert
from parma_api.status import ApiError
from parma_tenant.image.errors import ImageError, ImageMissingError
from parma_tenant.image.hashing import HashCache, hash_layers
from parma_tenant.image.image import Image
from parma_tenant.image.sources import Places, find_images, open_sources
from parma_tenant.image.tarindex import index, plain
from tests.unit.tenant.policy.kit import (
    INDEX,
    NAME,
    Blobs,
    base_layer,
    docker_archive,
    sha256,
    simple_archive,
    tar_of,
)


def load(path: Path, name: str = NAME) -> Image:
    """The image; its archive is closed when this returns, so it can be looked at but not hashed."""
    with ExitStack() as stack:
        return find_images([name], open_sources(Places((path,)), stack))[name]


def hashes(path: Path, cache: Path, name: str = NAME) -> list[str]:
    with ExitStack() as stack:
        image = find_images([name], open_sources(Places((path,)), stack))[name]
        found = hash_layers(image.layers, HashCache(cache))
        return [str(found[layer.diff_id].root_hash) for layer in image.layers]


def expected(*layers: bytes) -> list[str]:
    return [str(convert(io.BytesIO(layer), None).root_hash) for layer in layers]


def test_oci_archive(tmp_path: Path) -> None:
    path = simple_archive(tmp_path / "a.tar", User="app")
    image = load(path, "app:1")
    assert image.reference == NAME
    assert image.config.user == "app"
    assert image.digest is not None
    assert hashes(path, tmp_path) == expected(base_layer())
    assert load(path, f"app@{image.digest}").digest == image.digest
    with pytest.raises(ImageMissingError):
        load(path, "app:2")


def test_oci_folder(tmp_path: Path) -> None:
    blobs = Blobs()
    files = blobs.layout_files(blobs.image([base_layer()], NAME, Cmd=["x"]))
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert hashes(tmp_path, tmp_path / "cache") == expected(base_layer())
    with ExitStack() as stack:
        sources = open_sources(Places(layouts=(tmp_path,)), stack)
        assert find_images(["app:1"], sources)["app:1"].config.cmd == ("x",)


def test_a_link_out_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text('{"manifests": []}')
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout" / "index.json").symlink_to("../outside.json")
    with pytest.raises(ImageError, match="leads out of the folder"):
        load(tmp_path / "layout")


def test_docker_archive(tmp_path: Path) -> None:
    layers = [base_layer(), tar_of({"b": b"2"})]
    path = docker_archive(tmp_path / "d.tar", "app:1", layers, Cmd=["x"])
    image = load(path, "app:1")
    assert image.digest is None
    assert hashes(path, tmp_path) == expected(*layers)


def test_docker_archive_with_links_between_layers(tmp_path: Path) -> None:
    layer = base_layer()
    config = {"rootfs": {"diff_ids": [sha256(layer)]}, "config": {}}
    entries = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["two/layer.tar"]}]
    link = tarfile.TarInfo("two/layer.tar")
    link.type, link.linkname = tarfile.SYMTYPE, "../one/layer.tar"
    files = {
        "manifest.json": json.dumps(entries).encode(),
        "c.json": json.dumps(config).encode(),
        "one/layer.tar": layer,
    }
    path = tmp_path / "d.tar"
    path.write_bytes(tar_of(files, link=link))
    assert hashes(path, tmp_path) == expected(layer)


def test_index_of_platforms_and_attestations(tmp_path: Path) -> None:
    blobs = Blobs()
    ours = blobs.image([base_layer()], Cmd=["ours"]) | {
        "platform": {"os": "linux", "architecture": "amd64"}
    }
    v3 = blobs.image([tar_of({"v3": b""})], Cmd=["v3"]) | {
        "platform": {"os": "linux", "architecture": "amd64", "variant": "v3"}
    }
    arm = blobs.image([tar_of({"arm": b""})], Cmd=["arm"]) | {
        "platform": {"os": "linux", "architecture": "arm64"}
    }
    proof = blobs.put_json({"layers": []}, "application/vnd.oci.image.manifest.v1+json") | {
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    listed = blobs.put_json({"manifests": [proof, arm, v3, ours]}, INDEX)
    listed["annotations"] = {"io.containerd.image.name": NAME}
    image = load(blobs.archive(tmp_path / "a.tar", listed))
    assert image.config.cmd == ("ours",)
    assert image.digest == listed["digest"]
    only = blobs.put_json({"manifests": [proof, arm]}, INDEX)
    only["annotations"] = {"io.containerd.image.name": NAME}
    with pytest.raises(ImageError, match="no image for linux/amd64"):
        load(blobs.archive(tmp_path / "b.tar", only))


def broken_gzip(layer: bytes) -> bytes:
    return gzip.compress(layer, mtime=0)[:-9]


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (gzip.compress(b"\x01" * 1024), "E_TAR_HEADER"),
        (broken_gzip(base_layer()), "E_COMPRESSION"),
        (b"\xfd7zXZ\0" + bytes(100), "E_COMPRESSION"),
        (gzip.compress(base_layer() + b"x" * 512), "not the one that the image names"),
    ],
)
def test_bad_layers(layer: bytes, why: str, tmp_path: Path) -> None:
    blobs = Blobs()
    image = blobs.image([base_layer()], NAME, Cmd=["x"])
    manifest = json.loads(blobs.content[str(image["digest"])])
    manifest["layers"] = [blobs.put(layer, "application/vnd.oci.image.layer.v1.tar+gzip")]
    changed = blobs.put_json(manifest, str(image["mediaType"])) | {
        "annotations": image["annotations"]
    }
    path = blobs.archive(tmp_path / "a.tar", changed)
    with pytest.raises(ImageError, match=why) as caught:
        hashes(path, tmp_path / "cache")
    assert "\n" not in caught.value.message
    assert not list((tmp_path / "cache").rglob("sha*"))


def change_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        blobs = Blobs()
        image = blobs.image([base_layer()], NAME, Cmd=["x"])
        manifest = json.loads(blobs.content[str(image["digest"])])
        change(manifest)
        changed = blobs.put_json(manifest, str(image["mediaType"]))
        return blobs.archive(path, changed | {"annotations": image["annotations"]})

    return made


def wrong_blob(path: Path) -> Path:
    blobs = Blobs()
    image = blobs.image([base_layer()], NAME)
    manifest = json.loads(blobs.content[str(image["digest"])])
    blobs.content[manifest["config"]["digest"]] = blobs.content[
        manifest["config"]["digest"]
    ].replace(b"amd64", b"amd46")
    return blobs.archive(path, image)


def of_bytes(data: bytes) -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return made


def device() -> tarfile.TarInfo:
    info = tarfile.TarInfo("dev")
    info.type = tarfile.CHRTYPE
    return info


def link(target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("index.json")
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (wrong_blob, "has other content"),
        (change_manifest(lambda m: m["config"].update(size=3)), "longer than its descriptor"),
        (change_manifest(lambda m: m["config"].update(size=10**6)), "cut off"),
        (change_manifest(lambda m: m["config"].update(size=10**12)), "too large"),
        (change_manifest(lambda m: m["config"].update(size=-1)), "without a size"),
        (
            change_manifest(lambda m: m["config"].update(digest="sha256:../../etc/passwd")),
            "no sha256",
        ),
        (change_manifest(lambda m: m["layers"].append(m["layers"][0])), "number of layers"),
        (change_manifest(lambda m: m["layers"].extend(m["layers"] * 600)), "more than 512 layers"),
        (
            change_manifest(lambda m: m["layers"][0].update(mediaType="text/html")),
            "cannot be hashed",
        ),
        (change_manifest(lambda m: m.pop("config")), "no image manifest"),
        (change_manifest(lambda m: m.update(manifests=[{}])), "an index too"),
        (change_manifest(lambda m: m.update(mediaType=INDEX)), "an index too"),
        (of_bytes(tar_of({"index.json": b'{"manifests": [], "layers": []}'})), "a manifest too"),
        (of_bytes(b""), "empty, or no tar"),
        (of_bytes(b"x" * 10240), "no tar file"),
        (of_bytes(gzip.compress(b"x")), "compressed as a whole"),
        (of_bytes(tar_of({"../index.json": b"{}"})), "a path out of it"),
        (of_bytes(tar_of({"/index.json": b"{}"})), "a path out of it"),
        (of_bytes(tar_of({"a": b""}, device=device())), "neither file, link nor folder"),
        (of_bytes(tar_of({}, link=link("../../etc/passwd"))), "a path out of it"),
        (of_bytes(tar_of({}, link=link("/etc/passwd"))), "a path out of it"),
        (of_bytes(tar_of({}, link=link("index.json"))), "has no index.json"),
        (of_bytes(tar_of({"index.json": b"[" * 100000})), "no JSON"),
        (of_bytes(tar_of({"index.json": b"[]"})), "no JSON object"),
        (of_bytes(tar_of({"x": b"y"})), "holds no images"),
        (of_bytes(tar_of({"manifest.json": b"{}"})), "no list of objects"),
    ],
)
def test_hostile_archives(make: Callable[[Path], Path], why: str, tmp_path: Path) -> None:
    with pytest.raises(ApiError) as caught:
        load(make(tmp_path / "a.tar"))
    assert why in caught.value.message
    assert "\n" not in caught.value.message


def test_a_config_without_layers_is_refused(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "d.tar", "app:1", [])
    with pytest.raises(ImageError, match="has no layers"):
        load(path)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = simple_archive(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ApiError):
        hashes(path, tmp_path / "cache")


def test_an_extension_header_as_large_as_the_file(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 2 << 20
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf() + bytes(2 << 20))
    with pytest.raises(ImageError, match="more than 1 MiB"):
        load(path)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_the_index_agrees_with_tarfile(form: int, tmp_path: Path) -> None:
    names = ["a", "d/" + "x" * 90, "./e//f"] + (
        [] if form == tarfile.USTAR_FORMAT else ["y" * 300, "ü" * 80]
    )
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = number
            tar.addfile(info, io.BytesIO(b"z" * number))
    with path.open("rb") as file, tarfile.open(path) as tar:
        found = index(file.fileno())
        assert {name: (member.offset, member.size) for name, member in found.items()} == {
            plain(info.name): (info.offset_data, info.size) for info in tar
        }


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_archive_never_gives_another_image(data: st.DataObject, tmp_path: Path) -> None:
    path = simple_archive(tmp_path / "a.tar")
    good = load(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = load(path, f"app@{good.digest}")
    except ApiError as error:
        assert "\n" not in error.message  # noqa: PT017
    else:
        assert (found.config, found.digest) == (good.config, good.digest)
