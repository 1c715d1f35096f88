"""What a container sees of Kubernetes: identity, environment, files and their refresh, limits, network names."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import Lab, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.vm, pytest.mark.timeout(900)]
POD = "desk"
OPTIONS = (
    "--profile",
    "containerd@1.6",
    "--allow-exec",
    "box=/bin/sh",
    "--allow-exec",
    "locked=/bin/sh",
)


@pytest.fixture(scope="module", autouse=True)
def desk(lab: Lab, applied: Callable[..., None]) -> None:
    applied("desk.yaml", OPTIONS)
    lab.ready(POD)


def test_user_groups_and_fsgroup(lab: Lab) -> None:
    words = lab.sh(POD, "id -u; id -g; id -G").split()
    assert words[:2] == ["1000", "3000"]
    assert "2000" in words[2:]
    assert lab.sh(POD, "id -u; id -g", "locked").split() == ["1234", "3000"]


def test_environment_from_references(lab: Lab) -> None:
    pod = lab.object("pod", POD)
    shown = lab.sh(POD, "echo $COLOR $NODE $ADDRESS $HOSTNAME").split()
    assert shown == ["blue", pod["spec"]["nodeName"], pod["status"]["podIP"], POD]


def test_hostname_and_hosts(lab: Lab) -> None:
    assert lab.sh(POD, "hostname").strip() == POD
    assert f"{lab.object('pod', POD)['status']['podIP']}\t{POD}" in lab.sh(POD, "cat /etc/hosts")


def test_dns_and_the_api_server(lab: Lab) -> None:
    answer = lab.sh(POD, "nslookup kubernetes.default.svc.cluster.local")
    address = lab.object("service", "kubernetes")["spec"]["clusterIP"]
    assert f"Address: {address}" in answer


def test_config_map_secret_projected_downward(lab: Lab) -> None:
    assert lab.sh(POD, "cat /settings/color /all/color /door/password").split() == [
        "blueblueopen-sesame"
    ]
    assert lab.sh(POD, "cat /about/labels").strip() == 'room="12"'
    assert lab.sh(POD, "stat -L -c %a:%g /door/password").strip() == "440:2000"
    assert lab.sh(POD, "cat /all/token").count(".") == 2


def test_sub_path_of_a_config_map(lab: Lab) -> None:
    assert lab.sh(POD, "cat /etc/shape") == "round"


def test_service_account_token_reaches_the_api(lab: Lab) -> None:
    token = lab.sh(POD, "cat /var/run/secrets/kubernetes.io/serviceaccount/token").strip()
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    }
    answer = json.loads(
        lab.cluster.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review))
    )
    assert answer["status"]["authenticated"]
    assert answer["status"]["user"]["username"] == "system:serviceaccount:default:default"


def test_empty_dir_is_shared_by_the_containers(lab: Lab) -> None:
    assert lab.sh(POD, "cat /scratch/prepared").strip() == "prepared"
    first = lab.sh(POD, "cat /scratch/beside")
    assert wait_for(lambda: lab.sh(POD, "cat /scratch/beside") != first, 20)


def test_a_part_of_an_empty_dir_is_the_same_for_all(lab: Lab) -> None:
    lab.sh(POD, "echo by-part > /part/one; echo by-whole > /scratch/part/two")
    assert lab.sh(POD, "cat /scratch/part/one /part/two").split() == ["by-part", "by-whole"]
    assert lab.sh(POD, "cat /mine/one /named/note", "locked").split() == ["by-part", "by-init"]


def test_what_is_made_in_an_empty_dir_has_the_pods_group(lab: Lab) -> None:
    for folder in ("/scratch", "/part", "/memory"):
        assert lab.sh(POD, f"touch {folder}/made; stat -c %g {folder}/made").strip() == "2000"


def test_an_empty_dir_in_memory_has_its_size(lab: Lab) -> None:
    assert lab.sh(POD, "stat -f -c %T /memory").strip() == "tmpfs"
    assert lab.sh(POD, "stat -f -c %T /scratch").strip() != "tmpfs"
    size, block = lab.sh(POD, "stat -f -c '%b %S' /memory").split()
    assert int(size) * int(block) == 4 << 20
    told = lab.sh(POD, "dd if=/dev/zero of=/memory/fill bs=64k count=128 2>&1", check=False)
    assert "No space left on device" in told
    assert lab.sh(POD, "stat -c %s /also/fill", "locked").strip() == str(4 << 20)
    lab.sh(POD, "rm /memory/fill")


def test_a_config_map_and_a_secret_are_refreshed_wherever_they_are(lab: Lab) -> None:
    patch = json.dumps({"data": {"color": "green"}})
    lab.cluster.kubectl("patch", "configmap", "settings", "-p", patch)
    lab.cluster.kubectl("patch", "secret", "door", "-p", '{"stringData": {"password": "new"}}')
    files = "/settings/color /all/color /door/password /all/password"
    assert wait_for(lambda: lab.sh(POD, f"cat {files}") == "greengreennewnew", 60)
    assert lab.sh(POD, "cat /etc/shape") == "round"


def test_labels_are_refreshed(lab: Lab) -> None:
    lab.cluster.kubectl("label", "pod", POD, "room=13", "--overwrite")
    assert wait_for(lambda: lab.sh(POD, "cat /about/labels").strip() == 'room="13"', 60)


def test_read_only_root_and_no_capabilities(lab: Lab) -> None:
    assert "Read-only" in lab.sh(POD, "touch /x 2>&1", "locked", check=False)
    status = lab.sh(POD, "cat /proc/self/status", "locked")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"


def test_seccomp_runtime_default(lab: Lab) -> None:
    status = lab.sh(POD, "cat /proc/self/status")
    assert "Seccomp:\t2" in status
    # The agent's own filter and the profile's.
    assert "Seccomp_filters:\t2" in status


def test_sysctl(lab: Lab) -> None:
    assert lab.sh(POD, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start").strip() == "80"


def test_limits_are_cgroups_of_the_guest(lab: Lab) -> None:
    shown = lab.sh(POD, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max").split()
    assert shown == [str(96 << 20), "50000", "100000"]


def test_root_files_are_the_guests(lab: Lab) -> None:
    kernel = lab.cluster.node("uname", "-r").strip()
    assert lab.sh(POD, "uname -r").strip() != kernel
