"""The Rego side as such: format, strict check, its own tests with coverage, and the tables that Python shares."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from parma_api.policy import defaults
from parma_api.policy.bundle import DATA_NAMES, FRAMEWORK_FOLDERS, RESERVED_NAMES
from parma_api.policy.check import FORBIDDEN_BUILTINS, seal_capabilities
from parma_api.policy.points import API_VERSION, FRAMEWORK_VERSION, TABLE, Missing

COVERAGE = 95.0
"""Per cent of the framework's lines that its own tests reach; the vectors reach more."""


def run(opa: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(opa), *arguments], capture_output=True, text=True, timeout=100, check=False
    )


def sources(bundle_dir: Path) -> list[str]:
    return [str(bundle_dir / folder) for folder in FRAMEWORK_FOLDERS]


def test_format(opa: Path, bundle_dir: Path) -> None:
    done = run(opa, "fmt", "--fail", "--list", str(bundle_dir))
    assert (done.returncode, done.stdout) == (0, "")


def test_strict_check(opa: Path, bundle_dir: Path) -> None:
    done = run(opa, "check", "--strict", *sources(bundle_dir))
    assert (done.returncode, done.stderr) == (0, "")


def test_samples_check(opa: Path, bundle_dir: Path) -> None:
    for sample in sorted((bundle_dir / "samples").glob("*.rego")):
        done = run(opa, "check", "--strict", *sources(bundle_dir), str(sample))
        assert (done.returncode, done.stderr) == (0, ""), sample.name


def test_own_tests_and_coverage(opa: Path, bundle_dir: Path) -> None:
    paths = [*sources(bundle_dir), str(bundle_dir / "data.json")]
    plain = run(opa, "test", *paths)
    assert plain.returncode == 0, plain.stdout
    report = json.loads(run(opa, "test", "--coverage", *paths).stdout)
    files = {name: f for name, f in report["files"].items() if not name.endswith("_test.rego")}
    covered = sum(f.get("covered_lines", 0) for f in files.values())
    missed = sum(f.get("not_covered_lines", 0) for f in files.values())
    assert 100 * covered / (covered + missed) >= COVERAGE, report["coverage"]


def test_api_table_equals_pythons(opa: Path, bundle_dir: Path) -> None:
    done = run(opa, "eval", "--format", "raw", "--data", str(bundle_dir / "api"), "data.api")
    api = json.loads(done.stdout)
    assert (api["version"], api["generation"]) == (API_VERSION, FRAMEWORK_VERSION)
    table = {
        point.value: (
            row.introduced,
            row.missing is Missing.FRAMEWORK,
            row.missing is Missing.ALLOW,
            row.optional,
        )
        for point, row in TABLE.items()
    }
    assert table == {
        name: (
            row["introduced"],
            row.get("framework", False),
            row["default"]["allowed"],
            row.get("optional", False),
        )
        for name, row in api["points"].items()
    }


def test_data_equals_pythons(bundle_dir: Path) -> None:
    data = json.loads((bundle_dir / "data.json").read_text())
    assert set(data) == set(DATA_NAMES)
    assert tuple(data["defaultUnprivilegedCapabilities"]) == defaults.UNPRIVILEGED_CAPABILITIES
    assert tuple(data["defaultPrivilegedCapabilities"]) == defaults.PRIVILEGED_CAPABILITIES


def test_sealed_capabilities_are_those_of_this_opa(opa: Path, bundle_dir: Path) -> None:
    current = json.loads(run(opa, "capabilities", "--current").stdout)
    names = {builtin["name"] for builtin in current["builtins"]}
    assert names >= FORBIDDEN_BUILTINS
    assert json.loads((bundle_dir / "capabilities.json").read_text()) == seal_capabilities(current)


def test_framework_defines_no_name_that_fragments_define(bundle_dir: Path) -> None:
    """`data[input.namespace].containers` would make such a rule depend on itself."""
    text = "\n".join(file.read_text() for file in (bundle_dir / "framework").rglob("*.rego"))
    for name in (
        "containers",
        "fragments",
        "external_processes",
        "platform_rules",
        "svn",
        "framework_version",
    ):
        assert f"\n{name} :=" not in text
        assert f"\n{name} contains" not in text


def test_every_name_of_ours_is_reserved(bundle_dir: Path) -> None:
    assert set(FRAMEWORK_FOLDERS) - {"authz"} <= RESERVED_NAMES
    assert {"system", "gate_state", "fragment_values", "defaultMounts"} <= RESERVED_NAMES
