"""Documents of images, good and bad (K5: what has no layers of its own never reaches a disk)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parma_api.ids import DiffId
from parma_shim.image import blob, manifest
from parma_shim.image.errors import ImageError

D = ["sha256:" + f"{n:064x}" for n in range(200)]
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": D[0], "size": 2}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": D[1], "size": 3}


def document(**changes: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": [LAYER], **changes}).encode()


def config(**changes: object) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [D[2]]}
    return json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": rootfs, **changes}
    ).encode()


def test_a_good_image() -> None:
    parsed = manifest.parse_manifest(document(annotations={"x": "y"}))
    assert parsed.layers == (manifest.Descriptor(str(LAYER["mediaType"]), D[1], 3),)
    assert manifest.parse_diff_ids(config(history=[]), parsed) == (D[2],)


@pytest.mark.parametrize("media_type", sorted(manifest.LAYER_TYPES))
def test_kinds_of_layers(media_type: str) -> None:
    assert manifest.parse_manifest(document(layers=[{**LAYER, "mediaType": media_type}])).layers


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (document(layers=[]), "no layers"),
        (document(layers=None), "no layers"),
        (document(layers={}), "no layers"),
        (document(layers=[{**LAYER, "size": 0}]), "usable size"),
        (document(layers=[{**LAYER, "size": -1}]), "usable size"),
        (document(layers=[{**LAYER, "size": True}]), "usable size"),
        (document(layers=[{**LAYER, "size": 1 << 50}]), "usable size"),
        (document(layers=[{**LAYER, "digest": "sha512:" + "0" * 128}]), "not sha256"),
        (document(layers=[{**LAYER, "digest": "sha256:../../etc/passwd"}]), "not sha256"),
        (document(layers=[{**LAYER, "digest": D[0] + "\n"}]), "not sha256"),
        (
            document(
                layers=[
                    {
                        **LAYER,
                        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
                    }
                ]
            ),
            "converted",
        ),
        (
            document(
                layers=[{**LAYER, "mediaType": "application/vnd.oci.image.layer.v1.tar+encrypted"}]
            ),
            "converted",
        ),
        (document(layers=[LAYER] * 128), "128 layers"),
        (document(layers=["x"]), "JSON object"),
        (document(schemaVersion=1), "schema version 2"),
        (
            document(config={**CONFIG, "mediaType": "application/vnd.wasm.config.v1+json"}),
            "no container image",
        ),
        (document(config=None), "JSON object"),
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 100000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b" " * (manifest.MAX_DOCUMENT + 1), "more than"),
    ],
)
def test_bad_manifests(text: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        manifest.parse_manifest(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (config(rootfs={"type": "layers", "diff_ids": []}), "0 layers and its manifest 1"),
        (config(rootfs={"type": "layers", "diff_ids": D[:2]}), "2 layers and its manifest 1"),
        (config(rootfs={"type": "layers", "diff_ids": ["../x"]}), "not sha256"),
        (config(rootfs={"type": "layers", "diff_ids": [7]}), "not sha256"),
        (config(rootfs={"type": "files", "diff_ids": D[:1]}), "lists no layers"),
        (config(rootfs=None), "JSON object"),
        (config(os="windows"), "windows/amd64"),
        (config(architecture=None), "linux/None"),
        (b"null", "JSON object"),
    ],
)
def test_bad_configs(text: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        manifest.parse_diff_ids(text, manifest.parse_manifest(document()))


def index(*platforms: object) -> bytes:
    entries = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": D[n],
            "size": 9,
            "platform": platform,
        }
        for n, platform in enumerate(platforms)
    ]
    return json.dumps({"manifests": entries}).encode()


def test_the_platform() -> None:
    ours, arm = (
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
    )
    attestation = {"os": "unknown", "architecture": "unknown"}
    assert manifest.choose_platform(index(attestation, arm, ours)).digest == D[2]
    for bad in (
        index(arm),
        index(),
        index(None, arm),
        b"{}",
        b'{"manifests": 5}',
        b'{"manifests": [7]}',
    ):
        with pytest.raises(ImageError):
            manifest.choose_platform(bad)
    bare = json.dumps({"manifests": [CONFIG]}).encode()
    assert manifest.choose_platform(bare).digest == D[0]


def test_chain_ids() -> None:
    """OCI image-spec, config.md: ChainID(L0|...|Ln) = digest(ChainID(L0|...|Ln-1) + " " + DiffID(Ln))."""
    first, second, third = (DiffId(d) for d in D[:3])
    assert manifest.chain_id([first]) == first
    two = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert manifest.chain_id([first, second]) == two
    assert (
        manifest.chain_id([first, second, third])
        == "sha256:" + hashlib.sha256(f"{two} {third}".encode()).hexdigest()
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_nothing_but_image_errors(value: object) -> None:
    text = json.dumps(value).encode()
    for parse in (manifest.parse_manifest, manifest.choose_platform):
        with pytest.raises(ImageError):
            parse(text)


def test_where_the_content_store_is() -> None:
    overlay = (
        "overlay",
        "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/work",
    )
    assert blob.content_store(overlay) == Path(
        "/var/lib/containerd/io.containerd.content.v1.content"
    )
    assert blob.content_store(("/dev/mapper/pool-snap-3",)) is None


def test_a_stored_blob_of_another_length_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "blobs/sha256"
    folder.mkdir(parents=True)
    (folder / D[1].removeprefix("sha256:")).write_bytes(b"abc")
    descriptor = manifest.Descriptor("", D[1], 3)
    with_file = blob.open_stored(tmp_path, descriptor)
    assert with_file is not None
    with with_file:
        assert with_file.read() == b"abc"
    assert blob.open_stored(tmp_path, manifest.Descriptor("", D[1], 4)) is None
    assert blob.open_stored(tmp_path, manifest.Descriptor("", D[2], 3)) is None
