"""Root hashes and facts of layers: computed once, in parallel, and kept by the digest of the uncompressed tar."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from parma_api.ids import RootHash, parse_root_hash
from parma_api.layer import FORMAT_VERSION, convert
from parma_api.layer.compression import Input, unpack
from parma_api.status import ApiError, InvalidArgumentError
from parma_tenant.image.errors import ImageError, ImageMissingError, RegistryError
from parma_tenant.image.image import Layer
from parma_tenant.image.scan import LayerFacts, Scanner, facts_of_json

Progress = Callable[[Layer, int], None]
"""Called with a layer and the bytes of its blob that were read so far, in any thread."""
_MAX_JOBS: Final = 8
_FACTS_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class HashedLayer:
    """What is known of a layer."""

    root_hash: RootHash
    facts: LayerFacts


def default_cache() -> Path:
    """$PARMA_CACHE, else the user's cache folder; `hashes` beneath it."""
    if named := os.environ.get("PARMA_CACHE"):
        return Path(named) / "hashes"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "parma" / "hashes"


class HashCache:
    """One small file for each layer; what is damaged or cannot be written counts as absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / f"v{FORMAT_VERSION}.{_FACTS_VERSION}"

    def get(self, diff_id: str) -> HashedLayer | None:
        """What was kept for a layer."""
        try:
            kept = json.loads(self._path(diff_id).read_text())
            return HashedLayer(parse_root_hash(kept["root_hash"]), facts_of_json(kept["facts"]))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, InvalidArgumentError):
            return None

    def put(self, diff_id: str, layer: HashedLayer) -> None:
        """Keeps it; a full disk is no reason to fail."""
        path = self._path(diff_id)
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        text = json.dumps({"root_hash": layer.root_hash, "facts": layer.facts.to_json()})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)

    def by_root(self) -> dict[str, LayerFacts]:
        """Facts of all layers that were ever hashed here, by root hash."""
        found = {}
        for path in self._folder.glob("sha*-*"):
            if path.suffix != ".part" and (layer := self.get(path.name.replace("-", ":", 1))):
                found[str(layer.root_hash)] = layer.facts
        return found

    def _path(self, diff_id: str) -> Path:
        return self._folder / diff_id.replace(":", "-", 1)


def missing(layers: Iterable[Layer], cache: HashCache) -> list[Layer]:
    """Those that have to be hashed, each once."""
    return [
        layer
        for layer in {layer.diff_id: layer for layer in layers}.values()
        if cache.get(layer.diff_id) is None
    ]


def hash_layers(
    layers: Iterable[Layer], cache: HashCache, progress: Progress = lambda _layer, _read: None
) -> dict[str, HashedLayer]:
    """What is known of each layer by its diff id, for all or for none. Raises ApiError of the first one that fails."""
    wanted = {layer.diff_id: layer for layer in layers}
    found: dict[str, HashedLayer] = {}
    for diff_id in list(wanted):
        if (kept := cache.get(diff_id)) is not None:
            found[diff_id] = kept
            del wanted[diff_id]
    if not wanted:
        return found
    workers = min(_MAX_JOBS, os.cpu_count() or 1, len(wanted))
    with ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(_hash, layer, progress): layer.diff_id for layer in wanted.values()}
        try:
            for job in as_completed(jobs):
                diff_id = jobs[job]
                found[diff_id] = job.result()
                cache.put(diff_id, found[diff_id])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


class _Scanned:
    """A reader of the uncompressed tar that shows the scanner what it gives."""

    def __init__(self, chunks: Iterator[bytes], scanner: Scanner) -> None:
        self._chunks = chunks
        self._scanner = scanner

    def read(self, _size: int = -1) -> bytes:
        """The next piece, whatever its size; the converter takes what it gets."""
        data = next(self._chunks, b"")
        self._scanner.feed(data)
        return data


def _hash(layer: Layer, progress: Progress) -> HashedLayer:
    scanner = Scanner()
    try:
        with layer.open() as blob:
            chunks = unpack(Input(blob, lambda read: progress(layer, read)))
            made = convert(cast("BinaryIO", _Scanned(chunks, scanner)), None)
    except (ImageMissingError, RegistryError):
        raise
    except ApiError as error:
        raise ImageError(f"layer {layer.title}: {error.message}") from error
    if made.diff_id != layer.diff_id:
        raise ImageError(
            f"layer {layer.title} is not the one that the image names: "
            f"its tar has the digest {made.diff_id}, not {layer.diff_id}"
        )
    return HashedLayer(made.root_hash, scanner.facts)
