"""The layer format: an OCI layer's tar to an ext4 image with a dm-verity tree, byte-identical to hcsshim's tar2ext4.

The shim converts with it, the tenant's tools compute the root hashes that a policy names.
"""

from parma_api.layer.convert import FORMAT_VERSION, Digests, LayerImage, Limits, convert
from parma_api.layer.errors import LayerError, LayerReadError, LayerWriteError

__all__ = [
    "FORMAT_VERSION",
    "Digests",
    "LayerError",
    "LayerImage",
    "LayerReadError",
    "LayerWriteError",
    "Limits",
    "convert",
]
