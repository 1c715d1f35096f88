"""Images from a registry on loopback: tokens, basic logins, helpers, redirects, refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from parma_tenant.image.errors import ImageError, ImageMissingError, RegistryError
from parma_tenant.image.hashing import HashCache, hash_layers
from parma_tenant.image.http import Client
from parma_tenant.image.image import Image
from parma_tenant.image.reference import parse_reference
from parma_tenant.image.registry import RegistrySource
from parma_tenant.image.token import parse_challenge
from tests.unit.tenant.policy.kit import (
    IDENTITY,
    INDEX,
    PASSWORD,
    USER,
    Blobs,
    Registry,
    base_layer,
    self_signed,
    serving,
)


@pytest.fixture
def registry() -> Iterator[Registry]:
    blobs = Blobs()
    image = blobs.image([base_layer()], Cmd=["x"]) | {
        "platform": {"os": "linux", "architecture": "amd64"}
    }
    listed = blobs.put_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [image]}, INDEX)
    tags = {"team/app:1": str(listed["digest"]), "team/app:plain": str(image["digest"])}
    with serving(Registry(blobs, tags)) as served:
        yield served


def find(registry: Registry, tmp_path: Path, name: str = "team/app:1") -> Image:
    source = RegistrySource(docker_config=tmp_path / "config.json")
    image = source.find(parse_reference(f"{registry.address}/{name}"))
    assert image is not None
    return image


def log_in(tmp_path: Path, **config: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))


def auth(registry: Registry, **more: str) -> dict[str, object]:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return {registry.address: more or {"auth": pair}}


def test_index_manifest_and_layers(registry: Registry, tmp_path: Path) -> None:
    image = find(registry, tmp_path)
    assert image.digest == registry.tags["team/app:1"]
    assert image.pinnable
    assert image.config.cmd == ("x",)
    assert len(hash_layers(image.layers, HashCache(tmp_path / "cache"))) == 1
    assert find(registry, tmp_path, "team/app:plain").digest == registry.tags["team/app:plain"]
    pinned = find(registry, tmp_path, f"team/app@{image.digest}")
    assert pinned.digest == image.digest
    assert all(authorization == "" for _, authorization in registry.seen)


def test_token_for_a_login(registry: Registry, tmp_path: Path) -> None:
    registry.token = "t0"
    log_in(tmp_path, auths=auth(registry))
    assert find(registry, tmp_path).config.cmd == ("x",)
    asked = [path for path, _ in registry.seen if path.startswith("/token")]
    assert asked == ["/token?service=s&scope=repository%3Ateam%2Fapp%3Apull"]
    assert registry.seen[-1][1] == "Bearer t0"


def test_token_for_an_identity_token(registry: Registry, tmp_path: Path) -> None:
    registry.token = "t1"
    log_in(tmp_path, auths=auth(registry, identitytoken=IDENTITY))
    assert find(registry, tmp_path).config.cmd == ("x",)


def test_basic_login(registry: Registry, tmp_path: Path) -> None:
    registry.basic = True
    log_in(tmp_path, auths=auth(registry, username=USER, password=PASSWORD))
    assert find(registry, tmp_path).config.cmd == ("x",)


@pytest.mark.parametrize("member", ["credsStore", "credHelpers"])
def test_credential_helper(
    member: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.basic = True
    helper = tmp_path / "docker-credential-mine"
    answer = json.dumps({"Username": USER, "Secret": PASSWORD})
    helper.write_text(
        f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = "{registry.address}" ] && echo \'{answer}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    log_in(tmp_path, **{member: "mine" if member == "credsStore" else {registry.address: "mine"}})
    assert find(registry, tmp_path).config.cmd == ("x",)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "refuses access"),
        (
            {"credsStore": "none-such"},
            "docker-credential-none-such, named in docker's configuration, is not installed",
        ),
        ({"credsStore": "../x"}, "no name of a credential helper"),
        ({"auths": {"HOST": {"auth": "???"}}}, "log in again"),
        ({"auths": {"HOST": {"auth": "bm9jb2xvbg=="}}}, "log in again"),
        ({"auths": {"HOST": {"username": "u", "password": "hunter2"}}}, "refuses access"),
    ],
)
def test_wrong_credentials(
    config: dict[str, object], why: str, registry: Registry, tmp_path: Path
) -> None:
    registry.basic = True
    log_in(tmp_path, **json.loads(json.dumps(config).replace("HOST", registry.address)))
    with pytest.raises(RegistryError) as caught:
        find(registry, tmp_path)
    assert why in caught.value.message
    assert "\n" not in caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_refused_token(registry: Registry, tmp_path: Path) -> None:
    registry.token = "t"
    with pytest.raises(RegistryError, match="refuses a token"):
        find(registry, tmp_path)


def test_redirects_carry_no_login_to_another_host(registry: Registry, tmp_path: Path) -> None:
    registry.token = "t2"
    log_in(tmp_path, auths=auth(registry))
    with serving(Registry(registry.blobs)) as storage:
        registry.redirect = f"http://{storage.address}"
        image = find(registry, tmp_path)
        assert len(hash_layers(image.layers, HashCache(tmp_path / "cache"))) == 1
    assert len(storage.seen) == 2
    assert all(authorization == "" for _, authorization in storage.seen)


def test_redirects_that_do_not_end(registry: Registry, tmp_path: Path) -> None:
    registry.redirect = ""
    with pytest.raises(RegistryError, match="more than 10 redirects"):
        find(registry, tmp_path)


@pytest.mark.parametrize("target", ["ftp://127.0.0.1", "file:///etc/passwd#"])
def test_redirects_elsewhere(target: str, registry: Registry, tmp_path: Path) -> None:
    registry.redirect = target
    with pytest.raises(RegistryError, match="redirects to nowhere"):
        find(registry, tmp_path)


def test_other_content_under_a_digest(registry: Registry, tmp_path: Path) -> None:
    digest = registry.tags["team/app:1"]
    registry.wrong_manifest = True
    with pytest.raises(ImageError, match="gives other content"):
        find(registry, tmp_path, f"team/app@{digest}")


def test_tls_on_loopback_with_a_certificate_of_its_own(registry: Registry, tmp_path: Path) -> None:
    with serving(Registry(registry.blobs, registry.tags), self_signed(tmp_path)) as served:
        image = find(served, tmp_path)
        assert len(hash_layers(image.layers, HashCache(tmp_path / "cache"))) == 1
        url = f"https://{served.address}/v2/team/app/manifests/1"
        with (
            pytest.raises(RegistryError, match="certificate verify failed"),
            Client().get(url, {}, plain_allowed=False),
        ):
            pass


def test_what_is_not_there(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ImageMissingError, match="has no manifests/none"):
        find(registry, tmp_path, "team/app:none")
    registry.blobs.content.clear()
    with pytest.raises(ImageMissingError):
        find(registry, tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    with serving(Registry()) as gone:
        pass
    with pytest.raises(RegistryError, match="cannot be reached") as caught:
        find(gone, tmp_path)
    assert "\n" not in caught.value.message


def test_plain_http_is_for_loopback_and_named_hosts_only() -> None:
    source = RegistrySource(docker_config=Path("none"), client=Client(seconds=0.1))
    with pytest.raises(RegistryError):
        source.find(parse_reference("registry.invalid/app:1"))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="x y"',
            ("bearer", "https://a/t", "s", "x y"),
        ),
        ("bearer realm=https://a/t", ("bearer", "https://a/t", "", "")),
        ('Basic realm="r"', ("basic", "", "", "")),
        ("Bearer", None),
        ('Negotiate realm="r"', None),
        ("", None),
    ],
)
def test_challenges(header: str, expected: tuple[str, str, str, str] | None) -> None:
    found = parse_challenge(header)
    assert (
        None if found is None else (found.scheme, found.realm, found.service, found.scope)
    ) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app", "docker.io/library/app:latest"),
        ("a/b:1", "docker.io/a/b:1"),
        ("index.docker.io/app", "docker.io/library/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("host:5000/app:v", "host:5000/app:v"),
        ("h.x/a/b/c@sha256:" + "a" * 64, "h.x/a/b/c@sha256:" + "a" * 64),
        ("h.x/a:t@sha256:" + "a" * 64, "h.x/a:t@sha256:" + "a" * 64),
    ],
)
def test_references(text: str, expected: str) -> None:
    assert str(parse_reference(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "a:",
        "a@sha256:1",
        "a b",
        "-a",
        "a/../b",
        "a:t/../x",
        "h.x/",
        "http://x/a",
        "a" * 300,
    ],
)
def test_no_references(text: str) -> None:
    with pytest.raises(ImageError):
        parse_reference(text)
