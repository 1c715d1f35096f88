"""config.toml: defaults, sources, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from parma_api.launch import VmSize
from parma_api.status import InvalidArgumentError
from parma_shim.config import DEFAULT, Config, load_config
from parma_shim.vmm.accel import AcceleratorSetting, ImageSetting


def write(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return {"PARMA_CONFIG": str(path)}


def test_nothing_at_all_is_the_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ""))
    assert config == Config()
    assert {source for _, _, source in config.explain()} == {DEFAULT}


def test_values_and_where_they_come_from(tmp_path: Path) -> None:
    environment = write(
        tmp_path,
        'image = "release"\naccelerator = "tcg"\nsize = "large"\nmemory_mib = 4096\ndefault_policy = "p.rego"\n',
    )
    config = load_config({**environment, "PARMA_RUN": "/r", "PARMA_LIB": "/l"})
    assert (config.image, config.accelerator, config.size) == (
        ImageSetting.RELEASE,
        AcceleratorSetting.TCG,
        VmSize.LARGE,
    )
    assert config.default_policy == tmp_path / "p.rego"
    assert (config.run_dir, config.lib_dir) == (Path("/r"), Path("/l"))
    assert config.source_of("memory_mib") == environment["PARMA_CONFIG"]
    assert config.source_of("run_dir") == "environment PARMA_RUN"
    assert ("memory_mib", "4096", environment["PARMA_CONFIG"]) in config.explain()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("qemu_args = 'x'", "unknown key 'qemu_args'"),
        ("kernel_params = 'x'", "unknown key"),
        ("run_dir = '/x'", "unknown key"),
        ("accelerator = 'fast'", "accelerator: must be one of auto, snp, kvm, tcg"),
        ("memory_mib = 1", "memory_mib: must be a number"),
        ("memory_mib = true", "memory_mib: must be a number"),
        ("memory_mib = '4096'", "memory_mib: must be a number"),
        ("qemu = 5", "qemu: must be a path"),
        ("uid_base = 0", "uid_base: must be"),
        ("size", "not TOML"),
    ],
)
def test_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        load_config(write(tmp_path, text))


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="No such file"):
        load_config({"PARMA_CONFIG": str(tmp_path / "none")})
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(InvalidArgumentError, match="UTF-8"):
        load_config({"PARMA_CONFIG": str(tmp_path / "binary")})
