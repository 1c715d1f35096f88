"""What a pod asks for: its policy, fragments and size, out of annotations, runtime options and the configuration.

All of it is the host's word. It chooses among what the tenant's policy allows and can weaken nothing; none of it
reaches QEMU's or the kernel's command line. The order of the ways to a policy is that of the contract: the pod's
annotations, the runtime's options, `default_policy`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import tomllib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parma_api.launch import VmSize
from parma_api.status import FailedPreconditionError, InvalidArgumentError
from parma_shim.config import CONFIG_FILE, MAX_CONFIG, Config
from parma_shim.vmm.config import MAX_MEMORY_MIB, MIN_MEMORY_MIB

POLICY = "io.parma/policy"
ACI_POLICY = "io.microsoft.virtualmachine.lcow.securitypolicy"
FRAGMENTS = "io.parma/fragments"
SIZE = "io.parma/size"
MEMORY = "io.parma/memory"
CRI_MEMORY = "io.kubernetes.cri.sandbox-memory"
KNOWN = frozenset({POLICY, FRAGMENTS, SIZE, MEMORY})

MAX_POLICY = 2 << 20
MAX_FRAGMENT = 1 << 20
MAX_FRAGMENTS = 64
GUEST_OVERHEAD_MIB = 256
"""What kernel, agent and OPA need beside the containers' own limits."""
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class PolicyText:
    """The exact bytes that the guest gets, and where they came from."""

    text: bytes
    source: str

    @property
    def host_data(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text).digest()


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """`runtimeoptions.v1.Options` as containerd hands it over: a file's path, or the text itself."""

    config_path: str = ""
    config_body: bytes = b""


@dataclass(frozen=True, slots=True)
class PodConfig:
    """Everything about one pod that the host decides."""

    policy: PolicyText
    fragments: tuple[bytes, ...]
    size: VmSize
    memory_mib: int


def pod_config(
    config: Config, annotations: Mapping[str, str], options: RuntimeOptions
) -> PodConfig:
    """Reads all of it. Raises FailedPreconditionError ("no policy: ..."), InvalidArgumentError naming what is bad."""
    extra = _options(options)
    return PodConfig(
        policy=find_policy(config, annotations, extra.policy),
        fragments=find_fragments(annotations, extra.fragments),
        size=_size(config, annotations),
        memory_mib=_memory(config, annotations),
    )


def find_policy(
    config: Config, annotations: Mapping[str, str], option: Path | None = None
) -> PolicyText:
    """The first policy that is given. Raises as `pod_config`."""
    for name in (POLICY, ACI_POLICY):
        if name in annotations:
            return PolicyText(_decode_policy(annotations[name], name), f"annotation {name}")
    if option is not None:
        return PolicyText(_read(option, MAX_POLICY, "policy"), f"runtime options: {option}")
    if config.default_policy is not None:
        return PolicyText(
            _read(config.default_policy, MAX_POLICY, "default_policy"),
            f"default_policy: {config.default_policy}",
        )
    raise FailedPreconditionError(
        f"no policy: annotate the pod with {POLICY} (base64 of the text), give `policy` in the file of "
        f"--runtime-config-path, or set default_policy in {CONFIG_FILE}"
    )


def find_fragments(
    annotations: Mapping[str, str], files: tuple[Path, ...] = ()
) -> tuple[bytes, ...]:
    """Signed envelopes in order: the annotation's, then those of the options. Raises InvalidArgumentError."""
    text = annotations.get(FRAGMENTS, "")
    parts = text.split(",") if text else []
    if len(parts) + len(files) > MAX_FRAGMENTS:
        raise InvalidArgumentError(f"more than {MAX_FRAGMENTS} fragments")
    given = [_base64(part, FRAGMENTS, MAX_FRAGMENT) for part in parts]
    return (*given, *(_read(file, MAX_FRAGMENT, "fragment") for file in files))


def unknown_annotations(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Names under io.parma/ that mean nothing: worth a warning, they are likely mistyped."""
    return tuple(
        sorted(name for name in annotations if name.startswith("io.parma/") and name not in KNOWN)
    )


@dataclass(frozen=True, slots=True)
class _Options:
    policy: Path | None = None
    fragments: tuple[Path, ...] = ()


def _options(options: RuntimeOptions) -> _Options:
    """A file's keys must be known; a body is containerd's whole option table, so foreign keys are normal there."""
    if options.config_path:
        path = Path(options.config_path)
        document = _toml(_read(path, MAX_CONFIG, "the file of the runtime options"), str(path))
        unknown = sorted(set(document) - {"policy", "fragments"})
        if unknown:
            raise InvalidArgumentError(
                f"{path}: unknown key {unknown[0]!r}; known: fragments, policy"
            )
        return _read_options(document, path.parent, str(path))
    if options.config_body:
        if len(options.config_body) > MAX_CONFIG:
            raise InvalidArgumentError("the runtime options are too long")
        return _read_options(
            _toml(options.config_body, "the runtime options"), Path("/"), "the runtime options"
        )
    return _Options()


def _read_options(document: Mapping[str, object], folder: Path, where: str) -> _Options:
    policy, fragments = document.get("policy"), document.get("fragments", [])
    if policy is not None and not (isinstance(policy, str) and policy):
        raise InvalidArgumentError(f"{where}: policy must be a path")
    if not isinstance(fragments, list) or not all(
        isinstance(item, str) and item for item in fragments
    ):
        raise InvalidArgumentError(f"{where}: fragments must be a list of paths")
    return _Options(
        folder / policy if policy else None, tuple(folder / str(item) for item in fragments)
    )


def _toml(text: bytes, where: str) -> Mapping[str, object]:
    try:
        return tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidArgumentError(f"{where}: not TOML: {error}") from error


def _decode_policy(text: str, name: str) -> bytes:
    data = _base64(text, name, MAX_POLICY)
    if name == POLICY and data.startswith(_GZIP):
        data = _gunzip(data, name)
    if not data:
        raise InvalidArgumentError(f"annotation {name} holds an empty policy")
    return data


def _base64(text: str, name: str, limit: int) -> bytes:
    """Refused by length before it is decoded, to the byte after."""
    too_long = InvalidArgumentError(f"annotation {name} is too long: at most {limit} bytes decoded")
    if len(text) > (limit + 2) // 3 * 4 + 4:
        raise too_long
    try:
        data = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgumentError(
            f"annotation {name} is not base64: encode with `base64 -w0`"
        ) from error
    if len(data) > limit:
        raise too_long
    return data


def _gunzip(data: bytes, name: str) -> bytes:
    """One gzip member, whole, of bounded size."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        text = unpacker.decompress(data, MAX_POLICY + 1)
    except zlib.error as error:
        raise InvalidArgumentError(f"annotation {name}: the gzip in it is broken") from error
    if len(text) > MAX_POLICY:
        raise InvalidArgumentError(
            f"annotation {name}: the policy has more than {MAX_POLICY} bytes unpacked"
        )
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidArgumentError(
            f"annotation {name}: the gzip in it is cut short, or something follows it"
        )
    return text


def _read(path: Path, limit: int, what: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise InvalidArgumentError(f"{what} {path} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise InvalidArgumentError(f"{what} {path} has more than {limit} bytes")
    if not data:
        raise InvalidArgumentError(f"{what} {path} is empty")
    return data


def _size(config: Config, annotations: Mapping[str, str]) -> VmSize:
    text = annotations.get(SIZE)
    if text is None:
        return config.size
    try:
        return VmSize(text)
    except ValueError as error:
        raise InvalidArgumentError(
            f"annotation {SIZE} must be one of {', '.join(VmSize)}"
        ) from error


def _memory(config: Config, annotations: Mapping[str, str]) -> int:
    """The annotation, else the sum of the pod's limits as kubelet tells it and what the guest itself needs."""
    if (text := annotations.get(MEMORY)) is not None:
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if not MIN_MEMORY_MIB <= number <= MAX_MEMORY_MIB:
            raise InvalidArgumentError(
                f"annotation {MEMORY} must be MiB from {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB}"
            )
        return number
    limits = annotations.get(CRI_MEMORY, "")
    if limits.isascii() and limits.isdigit() and (size := int(limits[:20])) > 0:
        mib = (size + (1 << 20) - 1 >> 20) + GUEST_OVERHEAD_MIB
        return min(max(mib, MIN_MEMORY_MIB), MAX_MEMORY_MIB)
    return config.memory_mib
