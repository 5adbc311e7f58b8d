# SPDX-License-Identifier: Apache-2.0
"""Credentials that are not options: of the environment, a profile, and the role of the host."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store._drivers.s3 import session
from glance_store.capabilities import BitMasks
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.loopback import BUCKET, Recorder, close, store_at, unconfigured_store_at
from tests.services.http_server import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.drivers.s3.conftest import Images
    from tests.drivers.s3.service import Service

MIB = 1024 * 1024
FROM_ELSEWHERE = {"s3_store_access_key": None, "s3_store_secret_key": None}
TOKEN = "canary-session-token/+="


class Metadata:
    """What hands out credentials: to the instance at one path, to a container at another one.

    :ivar keys: access key, secret key and session token
    :ivar works: whether it answers with them
    """

    def __init__(self) -> None:
        self.keys = ("", "", "")
        self.works = True
        self.lifetime = datetime.timedelta(hours=6)
        self.server = Recorder(self._answer)

    def _answer(self, request: Request, _body: bytes) -> Answer:
        if not self.works:
            return Answer(500, b"not now")
        if request.target == "/latest/api/token" and request.method == "PUT":
            lifetime = request.headers["x-aws-ec2-metadata-token-ttl-seconds"]
            headers = {"x-aws-ec2-metadata-token-ttl-seconds": lifetime}
            return Answer(200, b"canary-metadata-token", headers)
        if request.target == "/container":
            authorized = request.headers.get("authorization") == "canary-container-token"
            return self._credentials() if authorized else Answer(403)
        if request.headers.get("x-aws-ec2-metadata-token") != "canary-metadata-token":
            return Answer(401)
        roles = "/latest/meta-data/iam/security-credentials/"
        if request.target == roles:
            return Answer(200, b"images")
        return self._credentials() if request.target == f"{roles}images" else Answer(404)

    def _credentials(self) -> Answer:
        ends = datetime.datetime.now(datetime.timezone.utc) + self.lifetime
        answer = {
            "Code": "Success",
            "AccessKeyId": self.keys[0],
            "SecretAccessKey": self.keys[1],
            "Token": self.keys[2],
            "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return Answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    service = Metadata()
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    with service.server:
        yield service


@pytest.fixture(params=["instance", "container"])
def role(
    request: pytest.FixtureRequest, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Let the host have a role, or the container."""
    if request.param == "instance":
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.server.url)
    else:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.server.url}/container")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "canary-container-token")
    return str(request.param)


def check_transfer(images: Images) -> None:
    data = image(6 * MIB)
    uri = images.add("role", data)
    check_bytes(images.read(uri), data)
    images.delete(uri)


@pytest.fixture
def sent() -> Iterator[Recorder]:
    """A service that has every image, with four bytes."""

    def answer(request: Request, _body: bytes) -> Answer:
        headers = {"ETag": '"1"', "Content-Length": "4"}
        if request.method == "HEAD":
            return Answer(200, b"", headers)
        return Answer(206, b"data", {**headers, "Content-Range": "bytes 0-3/4"})

    with Recorder(answer) as server:
        yield server


def read(images: Images) -> bytes:
    return images.read(f"s3://127.0.0.1/{BUCKET}/image")


def tokens(sent: Recorder) -> set[str | None]:
    return {request.headers.get("x-amz-security-token") for request in sent.requests}


# -- session tokens


def test_session_token_of_the_environment(sent: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    images = store_at(sent.url, **FROM_ELSEWHERE)
    assert read(images) == b"data"
    assert tokens(sent) == {TOKEN}
    assert "x-amz-security-token" in sent.requests[0].headers["authorization"]
    close(images)


def test_session_token_of_a_profile(
    sent: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "credentials"
    path.write_text(
        "[images]\naws_access_key_id = access-key\naws_secret_access_key = canary-secret\n"
        f"aws_session_token = {TOKEN}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_PROFILE", "images")
    images = store_at(sent.url, **FROM_ELSEWHERE)
    assert read(images) == b"data"
    assert tokens(sent) == {TOKEN}
    close(images)


@pytest.mark.parametrize("variable", ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"])
def test_keys_in_a_file_are_read_again(
    sent: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    variable: str,
) -> None:
    """Something replaces them, and now and then writes only half of the file."""
    monkeypatch.setattr(session, "_REREAD", 0)
    path = tmp_path / "credentials"
    monkeypatch.setenv(variable, str(path))

    def write(token: str) -> None:
        path.write_text(
            "[default]\naws_access_key_id = access-key\n"
            f"aws_secret_access_key = canary-secret\naws_session_token = {token}\n"
        )

    def reads_with(token: str) -> bool:
        sent.requests.clear()
        assert read(images) == b"data"
        return tokens(sent) == {token}

    write("one")
    images = store_at(sent.url, **FROM_ELSEWHERE)
    assert reads_with("one")
    path.write_text("[default]\naws_access_key_id = access-key\n")
    assert reads_with("one")
    assert "Cannot read the S3 credentials again" in caplog.text
    write("two")
    assert reads_with("two")
    assert "canary" not in caplog.text
    close(images)


def test_keys_of_the_options_go_without_the_token_of_the_environment(
    sent: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    images = store_at(sent.url)
    assert read(images) == b"data"
    assert tokens(sent) == {None}
    close(images)


# -- roles


@pytest.mark.services
@pytest.mark.usefixtures("role")
def test_images_with_the_keys_of_a_role(
    make: Callable[..., Images],
    service: Service,
    metadata: Metadata,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    metadata.keys = (service.access_key, service.secret_key, "")
    images = make(**FROM_ELSEWHERE)
    check_transfer(images)
    assert metadata.server.requests
    assert service.secret_key not in caplog.text
    assert "canary" not in caplog.text
    close(images)


@pytest.mark.usefixtures("role")
def test_session_token_of_a_role(
    sent: Recorder, metadata: Metadata, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    metadata.keys = ("access-key", "canary-secret", TOKEN)
    images = store_at(sent.url, **FROM_ELSEWHERE)
    assert read(images) == b"data"
    assert tokens(sent) == {TOKEN}
    assert "canary" not in caplog.text
    close(images)


@pytest.mark.parametrize("role", ["container"], indirect=True)
@pytest.mark.usefixtures("role")
def test_keys_of_a_role_are_replaced_in_time(sent: Recorder, metadata: Metadata) -> None:
    """Those that are about to end are asked for again; the store has one client all the time."""
    metadata.keys = ("first-key", "canary-first", "canary-first-token")
    metadata.lifetime = datetime.timedelta(minutes=1)
    images = store_at(sent.url, **FROM_ELSEWHERE)
    client = images.store._client()
    metadata.keys = ("second-key", "canary-second", "canary-second-token")
    metadata.lifetime = datetime.timedelta(hours=6)
    assert read(images) == b"data"
    assert tokens(sent) == {"canary-second-token"}
    assert images.store._client() is client
    close(images)


# -- a role that is assumed


ASSUMED = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>canary-access</AccessKeyId>
<SecretAccessKey>canary-secret</SecretAccessKey><SessionToken>canary-session</SessionToken>
<Expiration>2199-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
REFUSED = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>not for you</Message></Error></ErrorResponse>"""


@pytest.fixture
def tokens_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Recorder]:
    """What exchanges the token of a pod for credentials."""
    path = tmp_path / "token"
    path.write_text("canary-web-identity")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(path))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/images")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with Recorder(lambda _request, _body: Answer(200, ASSUMED.encode())) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        yield server


def test_role_that_is_assumed(
    sent: Recorder, tokens_service: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    images = store_at(sent.url, **FROM_ELSEWHERE)
    assert read(images) == b"data"
    assert b"WebIdentityToken=canary-web-identity" in tokens_service.bodies[0]
    assert tokens(sent) == {"canary-session"}
    # The client library has written down that it has called the service, and with what.
    assert "AssumeRoleWithWebIdentity" in caplog.text
    assert "'WebIdentityToken': '***'" in caplog.text
    assert "canary" not in caplog.text
    close(images)


def test_role_that_may_not_be_assumed(sent: Recorder, tokens_service: Recorder) -> None:
    tokens_service.answer = lambda _request, _body: Answer(403, REFUSED.encode())
    store = unconfigured_store_at(sent.url, **FROM_ELSEWHERE)
    with pytest.raises(exceptions.BadStoreConfiguration, match="403 AccessDenied: not for you"):
        store.store.configure(re_raise_bsc=True)
    assert not store.store.is_capable(BitMasks.WRITE_ACCESS)


def test_single_sign_on(
    sent: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The credentials of a profile come for a token that somebody has got by signing on."""
    start = "https://example.awsapps.com/start"
    token = {"accessToken": "canary-bearer", "expiresAt": "2199-01-01T00:00:00Z"}
    key = hashlib.sha1(start.encode(), usedforsecurity=False).hexdigest()
    (tmp_path / f"{key}.json").write_text(json.dumps(token))
    config = tmp_path / "config"
    config.write_text(
        f"[default]\nsso_start_url = {start}\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = images\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(tmp_path))
    credentials = {
        "accessKeyId": "canary-access",
        "secretAccessKey": "canary-secret",
        "sessionToken": "canary-session",
        "expiration": 7226582400000,
    }
    body = json.dumps({"roleCredentials": credentials}).encode()
    caplog.set_level(logging.DEBUG)
    with Recorder(lambda _request, _body: Answer(200, body)) as portal:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", portal.url)
        images = store_at(sent.url, **FROM_ELSEWHERE)
        assert read(images) == b"data"
    assert portal.requests[0].headers["x-amz-sso_bearer_token"] == "canary-bearer"
    assert tokens(sent) == {"canary-session"}
    assert "sso_bearer_token': '***'" in caplog.text
    assert "canary" not in caplog.text
    close(images)


@pytest.mark.parametrize("status", [0, 503], ids=["nobody", "overloaded"])
def test_role_that_cannot_be_assumed_at_the_start(
    sent: Recorder, tokens_service: Recorder, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """The store takes images; each request tries again."""
    works = tokens_service.answer
    tokens_service.answer = lambda _request, _body: Answer(status)
    images = store_at(sent.url, **FROM_ELSEWHERE)
    assert images.store.is_capable(BitMasks.WRITE_ACCESS)
    assert "are not available now" in caplog.text
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        read(images)
    assert sent.requests == []
    tokens_service.answer = works
    assert read(images) == b"data"
    close(images)


# -- credentials that cannot be had


@pytest.mark.parametrize("role", ["container"], indirect=True)
@pytest.mark.usefixtures("role")
def test_role_that_cannot_be_asked_at_the_start(
    sent: Recorder, metadata: Metadata, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has said where the credentials are: the store takes images when they can be had."""
    metadata.works = False
    metadata.keys = ("access-key", "canary-secret", TOKEN)
    images = store_at(sent.url, **FROM_ELSEWHERE)
    assert images.store.is_capable(BitMasks.WRITE_ACCESS)
    assert "container-role" in caplog.text
    with pytest.raises(exceptions.BadStoreConfiguration, match="container-role"):
        read(images)
    assert sent.requests == []
    metadata.works = True
    later(images)
    assert read(images) == b"data"
    assert tokens(sent) == {TOKEN}
    close(images)


@pytest.mark.parametrize("role", ["instance"], indirect=True)
@pytest.mark.usefixtures("role")
def test_instance_without_a_role_at_the_start(sent: Recorder, metadata: Metadata) -> None:
    """That is no different from a host that is no instance. It takes no images; it may read."""
    metadata.works = False
    metadata.keys = ("access-key", "canary-secret", TOKEN)
    store = unconfigured_store_at(sent.url, **FROM_ELSEWHERE)
    with pytest.raises(exceptions.BadStoreConfiguration, match="no credentials were found"):
        store.store.configure(re_raise_bsc=True)
    assert not store.store.is_capable(BitMasks.WRITE_ACCESS)
    with pytest.raises(exceptions.BadStoreConfiguration, match="none were found"):
        read(store)
    metadata.works = True
    later(store)
    assert read(store) == b"data"
    close(store)


@pytest.mark.parametrize("role", ["instance"], indirect=True)
@pytest.mark.usefixtures("role")
def test_looking_for_credentials_in_vain_is_not_done_for_each_request(
    sent: Recorder, metadata: Metadata
) -> None:
    """It takes seconds where nobody answers, and all requests wait for it."""
    metadata.works = False
    store = unconfigured_store_at(sent.url, **FROM_ELSEWHERE)
    for _number in range(3):
        with pytest.raises(exceptions.BadStoreConfiguration):
            read(store)
        asked = len(metadata.server.requests)
        assert asked
    for _number in range(3):
        with pytest.raises(exceptions.BadStoreConfiguration):
            read(store)
    assert len(metadata.server.requests) == asked


def later(images: Images) -> None:
    """Let the time pass after which a store looks for credentials again."""
    clients = images.store._clients
    assert clients is not None
    clients._slot.look_again = 0.0


def test_profile_that_does_not_exist(sent: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake, which no waiting helps."""
    monkeypatch.setenv("AWS_PROFILE", "canary")
    store = unconfigured_store_at(sent.url, **FROM_ELSEWHERE)
    with pytest.raises(exceptions.BadStoreConfiguration, match="ProfileNotFound"):
        store.store.configure(re_raise_bsc=True)
    assert not store.store.is_capable(BitMasks.WRITE_ACCESS)
