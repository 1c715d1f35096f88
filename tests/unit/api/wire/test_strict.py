"""The strict checker over every generated message, with protobuf's own decoder as the second opinion."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import betterproto
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parma_api import gen
from parma_api.gen.containerd.runtime.bootstrap.v1 import BootstrapParams, BootstrapResult
from parma_api.gen.containerd.services.containers.v1 import Container
from parma_api.gen.containerd.task.v2 import CreateTaskRequest, StateResponse, WaitResponse
from parma_api.gen.containerd.types import Mount
from parma_api.gen.parma.agent.v1 import (
    FileEntry,
    ListProcessesResponse,
    MountLayerRequest,
    NextEventResponse,
    OutOfMemory,
    PutFilesRequest,
    Resources,
    ScsiAddress,
    SignalProcessRequest,
)
from parma_api.proto.generate import PROTO_ROOT
from parma_api.status import InvalidArgumentError
from parma_api.wire.strict import Limits, Unknown, check, decode

Proto = betterproto.Message


def every_message() -> list[type[Proto]]:
    found: dict[str, type[Proto]] = {}
    for module_info in pkgutil.walk_packages(gen.__path__, "parma_api.gen."):
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Proto) and value is not Proto:
                found[f"{value.__module__}.{value.__name__}"] = value
    return [found[name] for name in sorted(found)]


MESSAGES = every_message()
by_message = pytest.mark.parametrize(
    "cls", MESSAGES, ids=lambda c: f"{c.__module__[14:]}.{c.__name__}"
)
examples = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)

SCALARS: dict[str, st.SearchStrategy[object]] = {
    "string": st.text(max_size=8),
    "bytes": st.binary(max_size=8),
    "bool": st.booleans(),
    "int32": st.integers(-(1 << 31), (1 << 31) - 1),
    "int64": st.integers(-(1 << 63), (1 << 63) - 1),
    "uint32": st.integers(0, (1 << 32) - 1),
    "uint64": st.integers(0, (1 << 64) - 1),
}
MOMENTS = st.timedeltas(timedelta(days=-719_162), timedelta(days=2_932_896)).map(
    lambda since: datetime(1970, 1, 1, tzinfo=UTC) + since
)
KEYS = st.text(min_size=1, max_size=8)
"""betterproto writes no map entry whose key and value are both empty; no map of ours has an empty key."""


def values(kind: str, cls: type) -> st.SearchStrategy[object]:
    if kind == "enum":
        return st.sampled_from(list(cls))
    if kind == "message":
        return MOMENTS if cls is datetime else instances(cls)
    return SCALARS[kind]


def instances(cls: type[Proto]) -> st.SearchStrategy[Proto]:
    """Messages with any legal content; of a oneof at most one field."""
    meta = cls._betterproto
    fields: dict[str, st.SearchStrategy[object]] = {}
    groups: set[str] = set()
    for name, field in meta.meta_by_field_name.items():
        if field.group in groups:
            continue
        groups.update({field.group} if field.group else ())
        if field.proto_type == "map":
            assert field.map_types
            value_class = meta.cls_by_field[f"{name}.value"]
            fields[name] = st.dictionaries(
                KEYS, values(field.map_types[1], value_class), max_size=3
            )
            continue
        one = values(field.proto_type, meta.cls_by_field[name])
        fields[name] = st.lists(one, max_size=3) if meta.default_gen[name] is list else one
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: cls(**chosen))


def tag(number: int, wire_type: int) -> bytes:
    return betterproto.encode_varint(number << 3 | wire_type)


def refused(cls: type[Proto], data: bytes, **options: object) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        decode(cls, data, **options)  # type: ignore[arg-type]
    return caught.value.message


# --- every message -------------------------------------------------------------------------------------------------


def test_every_proto_is_covered() -> None:
    assert len(MESSAGES) > 120


@by_message
@examples
@given(data=st.data())
def test_round_trip(cls: type[Proto], data: st.DataObject) -> None:
    message = data.draw(instances(cls))
    assert decode(cls, bytes(message)) == message
    assert decode(cls, bytes(message), unknown=Unknown.IGNORE) == message


@by_message
@examples
@given(data=st.data())
def test_each_truncation_is_refused_or_a_shorter_message(
    cls: type[Proto], data: st.DataObject
) -> None:
    """A cut at a record's end is a message too; at every other place it must be refused."""
    whole = bytes(data.draw(instances(cls)))
    boundaries = {0}
    position = 0
    for record in betterproto.parse_fields(whole):
        position += len(record.raw)
        boundaries.add(position)
    for cut in range(len(whole)):
        if cut in boundaries:
            check(cls, whole[:cut])
        else:
            refused(cls, whole[:cut])


@by_message
def test_wrong_wire_type_is_refused_by_name(cls: type[Proto]) -> None:
    bodies = {0: b"\x01", 1: bytes(8), 2: b"\x00", 5: bytes(4)}
    meta = cls._betterproto
    for name, field in meta.meta_by_field_name.items():
        right = {0} if field.proto_type in betterproto.WIRE_VARINT_TYPES else {2}
        if right == {0} and meta.default_gen[name] is list:
            right = {0, 2}
        for wire_type in {0, 1, 2, 5} - right:
            for unknown in Unknown:
                message = refused(
                    cls, tag(field.number, wire_type) + bodies[wire_type], unknown=unknown
                )
                assert f"{name} has wrong wire type {wire_type}" in message


@by_message
@pytest.mark.parametrize("tail", [b"\x01", bytes(8), b"\x02ab", bytes(4)], ids=["0", "1", "2", "5"])
def test_unknown_field(cls: type[Proto], tail: bytes) -> None:
    wire_type = {b"\x01": 0, bytes(8): 1, b"\x02ab": 2, bytes(4): 5}[tail]
    data = tag(4000, wire_type) + tail
    assert "unknown field 4000" in refused(cls, data)
    check(cls, data, unknown=Unknown.IGNORE)
    for cut in range(1, len(data)):
        refused(cls, data[:cut], unknown=Unknown.IGNORE)


@by_message
@pytest.mark.parametrize("wire_type", [3, 4, 6, 7])
def test_groups_and_wire_types_that_do_not_exist(cls: type[Proto], wire_type: int) -> None:
    for unknown in Unknown:
        refused(cls, tag(1, wire_type), unknown=unknown)
        refused(cls, tag(4000, wire_type), unknown=unknown)


@by_message
@examples
@given(
    data=st.data(),
    tail=st.sampled_from([b"\x00", b"\xff", b"\x80\x00", b"\x80" * 11, b"\xff" * 10]),
)
def test_trailing_bytes(cls: type[Proto], data: st.DataObject, tail: bytes) -> None:
    for unknown in Unknown:
        refused(cls, bytes(data.draw(instances(cls))) + tail, unknown=unknown)


# --- a second opinion ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> dict[str, type[Message]]:
    """protobuf's own classes for the same protos, by module and class name of ours."""
    out = tmp_path_factory.mktemp("descriptors") / "all.pb"
    sources = sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.rglob("*.proto"))
    include = Path(str(files("grpc_tools"))) / "_proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO_ROOT}"]
    command += [f"--proto_path={include}", "--include_imports", f"--descriptor_set_out={out}"]
    subprocess.run([*command, *sources], check=True)
    pool = descriptor_pool.DescriptorPool()
    found: dict[str, type[Message]] = {}
    for proto in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(proto)
        for name, message in _walk(proto.package, proto.message_type):
            found[f"{proto.package}:{name}"] = message_factory.GetMessageClass(
                pool.FindMessageTypeByName(message)
            )
    return found


def _walk(scope: str, types: object, prefix: str = "") -> list[tuple[str, str]]:
    names = []
    for proto in types:  # type: ignore[attr-defined]
        names.append((prefix + proto.name, f"{scope}.{proto.name}"))
        nested = [inner for inner in proto.nested_type if not inner.options.map_entry]
        names += _walk(f"{scope}.{proto.name}", nested, prefix + proto.name)
    return names


def official_of(cls: type[Proto], official: dict[str, type[Message]]) -> type[Message]:
    package = cls.__module__.removeprefix("parma_api.gen.")
    names = {name.lower(): found for name, found in official.items()}  # IOStat is IoStat here
    return names[f"{package}:{cls.__name__}".lower()]


@by_message
@examples
@given(data=st.data())
def test_protobuf_reads_and_writes_the_same(
    cls: type[Proto], official: dict[str, type[Message]], data: st.DataObject
) -> None:
    message = data.draw(instances(cls))
    theirs = official_of(cls, official).FromString(bytes(message))

    assert decode(cls, theirs.SerializeToString()) == message


@settings(max_examples=300, deadline=None, database=None)
@given(data=st.data())
def test_what_passes_here_passes_protobuf(
    official: dict[str, type[Message]], data: st.DataObject
) -> None:
    cls = data.draw(st.sampled_from(MESSAGES))
    raw = bytearray(bytes(data.draw(instances(cls))))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        message = decode(cls, bytes(raw))
    except InvalidArgumentError:
        return
    try:
        theirs = official_of(cls, official).FromString(bytes(raw))
    except DecodeError:
        pytest.fail(f"protobuf refuses {bytes(raw).hex()}")
    assert decode(cls, theirs.SerializeToString()) == message


@settings(max_examples=300, deadline=None, database=None)
@given(cls=st.sampled_from(MESSAGES), raw=st.binary(max_size=40), unknown=st.sampled_from(Unknown))
def test_any_bytes_are_decoded_or_refused(cls: type[Proto], raw: bytes, unknown: Unknown) -> None:
    try:
        decode(cls, raw, unknown=unknown)
    except InvalidArgumentError as error:
        message = error.message
    else:
        return
    assert message.startswith(cls.__name__)


# --- single cases --------------------------------------------------------------------------------------------------

REFUSED = [
    pytest.param(
        ScsiAddress, "08 80808080 80808080 8002", "controller: over-long varint", id="65 bits"
    ),
    pytest.param(ScsiAddress, "08 8000", "controller: over-long varint", id="padded varint"),
    pytest.param(
        ScsiAddress, "08 ffffffffffffffffffff01", "controller: over-long varint", id="11 bytes"
    ),
    pytest.param(ScsiAddress, "08 8080808010", "controller: value 4294967296 is out", id="uint32"),
    pytest.param(ScsiAddress, "8800 01", "over-long varint", id="padded tag"),
    pytest.param(ScsiAddress, "08", "controller: truncated varint", id="no value"),
    pytest.param(ScsiAddress, "08 01 08 01", "controller: comes twice", id="twice"),
    pytest.param(ScsiAddress, "00 01", "field number 0 does not exist", id="number 0"),
    pytest.param(SignalProcessRequest, "20 02", "all: value 2 is out of range", id="bool of 2"),
    pytest.param(SignalProcessRequest, "0a 02 c328", "container_id: not UTF-8", id="invalid UTF-8"),
    pytest.param(SignalProcessRequest, "0a 03 eda080", "container_id: not UTF-8", id="surrogate"),
    pytest.param(
        SignalProcessRequest, "0a 05 6162", "container_id: truncated: 5 bytes", id="short string"
    ),
    pytest.param(MountLayerRequest, "0a 02 1080", "device.lun: truncated varint", id="nested"),
    pytest.param(MountLayerRequest, "0a 02 1801", "device: unknown field 3", id="nested unknown"),
    pytest.param(
        MountLayerRequest, "0a 01 10 01", "device.lun: truncated varint", id="beyond its parent"
    ),
    pytest.param(FileEntry, "10 04", "kind: value 4 is out of range", id="enum"),
    pytest.param(
        WaitResponse, "12 06 10 8094ebdc03", "exited_at: not a time", id="a second of nanos"
    ),
    pytest.param(
        WaitResponse, "12 07 08 ffb3eaa2ba 9403", "exited_at.seconds: truncated", id="cut time"
    ),
    pytest.param(
        ListProcessesResponse, "0a 01 01 0a 01 02", "pids: comes twice", id="two packed lists"
    ),
    pytest.param(ListProcessesResponse, "0a 02 0180", "pids: truncated varint", id="packed cut"),
    pytest.param(Container, "12 03 0a0161 1a 01", "image: truncated", id="after a map"),
    pytest.param(Container, "12 02 1801", "labels: unknown field 3", id="in a map"),
    pytest.param(Container, "12 06 0a0161 0a0162", "labels.key: comes twice", id="two keys"),
]


@pytest.mark.parametrize(("cls", "text", "reason"), REFUSED)
def test_refused(cls: type[Proto], text: str, reason: str) -> None:
    assert f"{cls.__name__}" in refused(cls, bytes.fromhex(text))
    assert reason in refused(cls, bytes.fromhex(text))


def test_unknown_enum_value_of_a_newer_peer() -> None:
    data = bytes.fromhex("20 07")
    assert "status: value 7" in refused(StateResponse, data)
    assert int(decode(StateResponse, data, unknown=Unknown.IGNORE).status) == 7
    assert "status" in refused(
        StateResponse, bytes.fromhex("20 8080808010"), unknown=Unknown.IGNORE
    )


def test_negative_numbers() -> None:
    assert decode(Resources, bytes(Resources(memory_limit=-1))).memory_limit == -1
    assert decode(BootstrapParams, bytes(BootstrapParams(log_level=-8))).log_level == -8


def test_packed_and_unpacked_lists() -> None:
    assert decode(ListProcessesResponse, bytes.fromhex("0a 03 01 8001")).pids == [1, 128]
    assert decode(ListProcessesResponse, bytes.fromhex("08 01 08 8001")).pids == [1, 128]
    assert decode(BootstrapResult, bytes.fromhex("22 02 0000")).capabilities == [0, 0]


def test_limits() -> None:
    mounts = CreateTaskRequest(rootfs=[Mount(type="overlay")] * 11)
    limit = Limits(items=10)
    assert "rootfs: more than 10 elements" in refused(
        CreateTaskRequest, bytes(mounts), limits=limit
    )
    check(CreateTaskRequest, bytes(CreateTaskRequest(rootfs=mounts.rootfs[:10])), limit)
    packed = bytes(ListProcessesResponse(pids=list(range(11))))
    assert "pids: more than 10" in refused(ListProcessesResponse, packed, limits=limit)
    pairs = Container(labels={str(number): "" for number in range(11)})
    assert "labels: more than 10" in refused(Container, bytes(pairs), limits=limit)
    assert "the limit is 10" in refused(FileEntry, bytes(100), limits=Limits(size=10))
    deep = bytes(MountLayerRequest(device=ScsiAddress(1, 2)))
    assert "device: messages nested deeper" in refused(
        MountLayerRequest, deep, limits=Limits(depth=0)
    )
    check(MountLayerRequest, deep, Limits(depth=1))
    many = CreateTaskRequest(rootfs=[Mount(options=["ro"] * 9)] * 9)
    assert "in all lists" in refused(CreateTaskRequest, bytes(many), limits=Limits(elements=50))
    unknown = tag(4000, 0) + b"\x01"
    assert "10" in refused(FileEntry, unknown * 11, limits=limit, unknown=Unknown.IGNORE)


def test_the_default_limit_of_a_list() -> None:
    entry = bytes(PutFilesRequest(entries=[FileEntry(path="a")]))
    check(PutFilesRequest, entry * 10_000)
    refused(PutFilesRequest, entry * 10_001)


def test_oneof_is_set_by_one_field() -> None:
    message = NextEventResponse(sequence=4, oom=OutOfMemory(container_id="c"))
    assert betterproto.which_one_of(decode(NextEventResponse, bytes(message)), "event")[0] == "oom"
    refused(NextEventResponse, bytes(message) + bytes.fromhex("12 00"))
