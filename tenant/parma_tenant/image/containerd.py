"""Images out of containerd's store, read from its folder: names from the metadata, blobs from the content store.

Layout: containerd core/metadata/buckets.go (v1/NAMESPACE/images/NAME/target), plugins/content/local.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from parma_tenant.image.boltdb import Bolt
from parma_tenant.image.documents import Descriptor, check_digest
from parma_tenant.image.errors import ImageError, ImageMissingError
from parma_tenant.image.image import Image, load_image
from parma_tenant.image.reference import Reference

DEFAULT_ROOT: Final = Path("/var/lib/containerd")
_METADATA: Final = "io.containerd.metadata.v1.bolt/meta.db"
_CONTENT: Final = "io.containerd.content.v1.content/blobs"


class ContentStore:
    """Blobs of containerd's content store."""

    def __init__(self, root: Path) -> None:
        self._folder = root / _CONTENT

    @contextmanager
    def open(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """As in BlobStore."""
        path = self._folder / descriptor.digest.replace(":", "/", 1)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise ImageMissingError(
                f"containerd's store has no content {descriptor.digest}: pull the image again (and keep "
                "discard_unpacked_layers off)"
            ) from None
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror}") from error
        with file:
            yield file


class ContainerdSource:
    """The images of a containerd, in all of its namespaces."""

    def __init__(self, root: Path) -> None:
        self._store = ContentStore(root)
        self._bolt = Bolt(root / _METADATA)

    def find(self, reference: Reference) -> Image | None:
        """As in ImageSource."""
        for namespace in self._bolt.bucket(b"v1") or ():
            for name in (str(reference), reference.without_digest):
                root = self._target(namespace, name)
                if root is not None and reference.digest in (None, root.digest):
                    return load_image(self._store, root, str(reference))
        return None

    def _target(self, namespace: bytes, name: str) -> Descriptor | None:
        target = self._bolt.bucket(b"v1", namespace, b"images", name.encode(), b"target")
        if target is None:
            return None
        digest = check_digest((target.get(b"digest") or b"").decode("latin-1"), name)
        media_type = (target.get(b"mediatype") or b"").decode("latin-1")
        return Descriptor(media_type, digest, _varint(target.get(b"size") or b""))


def _varint(data: bytes) -> int:
    """Go's binary.Varint (zigzag)."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value >> 1 ^ -(value & 1)
