"""Root hashes of layers: computed once, in parallel, and kept by the digest of the uncompressed tar."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from parma_api.ids import RootHash, parse_root_hash
from parma_api.layer import FORMAT_VERSION, convert
from parma_api.status import ApiError, InvalidArgumentError
from parma_tenant.image.blob import open_checked
from parma_tenant.image.errors import ImageError
from parma_tenant.image.image import Layer

Progress = Callable[[int], None]
_JOBS: Final = 8


def default_cache() -> Path:
    """$PARMA_CACHE/hashes, else the user's cache folder."""
    named = os.environ.get("PARMA_CACHE")
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(named) if named else (Path(home) if home else Path.home() / ".cache") / "parma"
    return base / "hashes"


class HashCache:
    """One small file for each layer; what is damaged or cannot be written counts as absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / f"v{FORMAT_VERSION}"

    def get(self, diff_id: str) -> RootHash | None:
        """The root hash that was kept for a layer."""
        try:
            kept = json.loads(self._path(diff_id).read_text())
            return parse_root_hash(str(kept["root_hash"]))
        except (OSError, ValueError, LookupError, TypeError, InvalidArgumentError):
            return None

    def put(self, diff_id: str, root: RootHash) -> None:
        """Keeps it; a full disk is no reason to fail."""
        path = self._path(diff_id)
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"root_hash": root}))
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)

    def _path(self, diff_id: str) -> Path:
        return self._folder / diff_id.replace(":", "-", 1)


def hash_layers(
    layers: Iterable[Layer], cache: HashCache, progress: Callable[[Layer, int], None] | None = None
) -> Mapping[str, RootHash]:
    """Root hashes by diff id, all or none. Raises ApiError, for the first layer that fails."""
    wanted = {layer.diff_id: layer for layer in layers}
    found: dict[str, RootHash] = {}
    for diff_id in list(wanted):
        if (root := cache.get(diff_id)) is not None:
            found[diff_id] = root
            del wanted[diff_id]
    if not wanted:
        return found
    workers = min(_JOBS, os.cpu_count() or 1, len(wanted))
    with ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(_hash, layer, progress): layer for layer in wanted.values()}
        try:
            for job in as_completed(jobs):
                diff_id = jobs[job].diff_id
                found[diff_id] = job.result()
                cache.put(diff_id, found[diff_id])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _hash(layer: Layer, progress: Callable[[Layer, int], None] | None) -> RootHash:
    def report(read: int) -> None:
        if progress is not None:
            progress(layer, read)

    try:
        with open_checked(layer.store, layer.blob) as reader:
            made = convert(reader, None, progress=report)
    except ApiError as error:
        raise ImageError(f"layer {layer.blob.digest}: {error.message}") from error
    if made.diff_id != layer.diff_id:
        raise ImageError(
            f"layer {layer.blob.digest} is not the one that the image names: "
            f"its tar has the digest {made.diff_id}, not {layer.diff_id}"
        )
    return made.root_hash
