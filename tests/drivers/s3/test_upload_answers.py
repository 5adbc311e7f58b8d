# SPDX-License-Identifier: Apache-2.0
"""Uploads whose requests arrive late or damaged, or meet an answer that the servers rarely give."""

from __future__ import annotations

import hashlib
import types
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers._objects import body
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.service import BUCKET, PATIENT
from tests.faults.http import How

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.conftest import Images
    from tests.drivers.s3.service import Service
    from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.services

MIB = 1024 * 1024
PART = 5 * MIB


def on(images: Images, event: str, handler: Callable[..., Any]) -> None:
    """Have a handler called for an event of the client library, before-send.s3.PutObject say."""
    images.store._client().s3.meta.events.register(event, handler)


class Late:
    """Requests that are under way for longer than the client waits, and arrive all the same.

    :param images: the store
    :param operation: of the requests
    """

    def __init__(self, images: Images, operation: str) -> None:
        self._held: list[Any] = []
        self.statuses: list[int] = []
        on(images, f"before-send.s3.{operation}", self._hold)

    def _hold(self, request: Any, **_event: Any) -> None:
        from botocore.exceptions import ReadTimeoutError

        # What was sent is on the way, whatever becomes of the buffer.
        if isinstance(request.body, body.RequestBody):
            request.body = bytes(request.body.read())
        self._held.append(request)
        raise ReadTimeoutError(endpoint_url=request.url)

    def arrive(self, **_event: Any) -> None:
        """Let the first of them arrive."""
        from botocore.httpsession import URLLib3Session

        session = URLLib3Session()
        self.statuses += [session.send(request).status_code for request in self._held[:1]]
        session.close()
        self._held.clear()


def test_join_that_is_late_leaves_no_object(images: Images, service: Service) -> None:
    """All tries time out, there is no object, and then the service joins the parts."""
    late = Late(images, "CompleteMultipartUpload")
    on(images, "before-call.s3.AbortMultipartUpload", late.arrive)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="Joining"):
        images.add("late", image(PART + 5))
    assert late.statuses == [200]
    assert service.listing() == []


# Two looks precede the first try, and one follows each of the two.
@pytest.mark.parametrize("look", [4, 5, 6, 7])
def test_put_that_is_late_leaves_no_object(images: Images, service: Service, look: int) -> None:
    """The object appears after the upload has looked for it, once or more often."""
    late = Late(images, "PutObject")
    looks = []

    def count(**_event: Any) -> None:
        looks.append(None)
        if len(looks) == look:
            late.arrive()

    on(images, "after-call.s3.HeadObject", count)
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="Storing"):
        images.add("late", b"data")
    assert late.statuses == [200]
    assert service.listing() == []


def test_put_that_is_late_is_the_image(images: Images, service: Service) -> None:
    """It arrives while the next try is under way, which is not needed any more."""
    late = Late(images, "PutObject")
    looks = []

    def count(**_event: Any) -> None:
        looks.append(None)
        if len(looks) == 3:
            late.arrive()

    on(images, "after-call.s3.HeadObject", count)
    assert images.read(images.add("late", b"data")) == b"data"
    assert late.statuses == [200]


def test_put_that_never_arrives_is_named(
    images: Images, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    Late(images, "PutObject")
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="Storing"):
        images.add("never", b"data")
    assert "never: the service did not say whether it stored the object" in caplog.text
    assert service.listing() == []


@pytest.mark.parametrize(
    ("status", "expected", "methods"),
    [
        (403, exceptions.Forbidden, "HEAD HEAD PUT HEAD"),
        # Bare, it may be for the condition: it is sent once more without that.
        (400, exceptions.BackendException, "HEAD HEAD PUT HEAD PUT HEAD"),
    ],
)
def test_definite_refusal_is_believed(
    images: Images, proxy: FaultProxy, status: int, expected: type[Exception], methods: str
) -> None:
    """No further requests look for an object that was never created."""
    images.add("other", b"data")
    proxy.clear()
    proxy.fail_request(3, status, times=None)
    with pytest.raises(expected, match=str(status)):
        images.add("refused", b"data")
    assert [request.method for request in proxy.requests] == methods.split()


# -- answers


class Answers:
    """Answers that the service does not give itself.

    :param images: the store
    :param operation: of the requests
    :param status: of the answer
    :param code: in its text
    :param times: how many requests get it; the others are sent
    """

    def __init__(
        self, images: Images, operation: str, status: int, code: str, times: int = 1000
    ) -> None:
        self._answer = status, f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
        self._left = times
        self.requests = 0
        on(images, f"before-send.s3.{operation}", self._reply)

    def _reply(self, request: Any, **_event: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        self.requests += 1
        if not self._left:
            return None
        self._left -= 1
        status, text = self._answer
        answer = AWSResponse(request.url, status, {"Content-Type": "application/xml"}, None)
        answer._content = text
        return answer


OPERATIONS = pytest.mark.parametrize(
    ("size", "operation"),
    [(1000, "PutObject"), (PART + 5, "CompleteMultipartUpload")],
    ids=["put", "parts"],
)


@OPERATIONS
def test_conflict_without_an_object_is_tried_again(
    images: Images, size: int, operation: str
) -> None:
    """Amazon: another request of that name was under way, ask again."""
    answers = Answers(images, operation, 409, "ConditionalRequestConflict", times=1)
    data = image(size)
    check_bytes(images.read(images.add("conflict", data)), data)
    assert answers.requests == 2


@OPERATIONS
def test_conflict_that_remains(images: Images, service: Service, size: int, operation: str) -> None:
    answers = Answers(images, operation, 409, "ConditionalRequestConflict")
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="ConditionalRequestConflict"):
        images.add("conflict", image(size))
    assert answers.requests == 2
    assert service.listing() == []


@OPERATIONS
def test_conflict_with_an_object_is_a_duplicate(
    images: Images, service: Service, size: int, operation: str
) -> None:
    """The other upload of that name has won."""
    answers = Answers(images, operation, 409, "ConditionalRequestConflict")

    def overtake(**_event: Any) -> None:
        service.client.put_object(Bucket=BUCKET, Key="conflict", Body=b"the other one")

    on(images, f"before-send.s3.{operation}", overtake)
    with pytest.raises(exceptions.Duplicate):
        images.add("conflict", image(size))
    assert answers.requests == 1
    assert len(service.listing()) == 1


@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart"])
def test_condition_that_nobody_has_set(images: Images, service: Service, operation: str) -> None:
    """A 412 is a refusal like others where the store has asked for no condition."""
    Answers(images, operation, 412, "PreconditionFailed")
    with pytest.raises(exceptions.BackendException, match="412 PreconditionFailed"):
        images.add("x", image(PART + 5))
    assert service.listing() == []


# -- damage

# HEAD of the object, HEAD of the bucket, then HEAD of the object and itself, or the beginning and
# the parts.
BODY = 4
BODIES = pytest.mark.parametrize("size", [1000, 2 * PART + 5], ids=["put", "parts"])


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what the store has hashed for the service."""
    sizes: list[int] = []

    def sha256(data: Any) -> Any:
        sizes.append(len(data))
        return hashlib.sha256(data)

    monkeypatch.setattr(body, "hashlib", types.SimpleNamespace(sha256=sha256, md5=hashlib.md5))
    return sizes


def puts(proxy: FaultProxy) -> int:
    return sum(request.method == "PUT" for request in proxy.requests)


@BODIES
@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("times", [1, 2])
def test_damaged_body_is_sent_again(
    make: Callable[..., Images],
    proxy: FaultProxy,
    hashed: list[int],
    size: int,
    times: int,
) -> None:
    images = make(s3_store_retry_timeout=PATIENT)
    proxy.fail_request(BODY, how=How.DAMAGE, times=times)
    data = image(size)
    uri = images.add("damaged", data)
    assert puts(proxy) == -(-size // PART) + times
    assert sum(hashed) == size
    check_bytes(images.read(uri), data)


@BODIES
def test_body_that_is_always_damaged(
    make: Callable[..., Images], service: Service, proxy: FaultProxy, size: int
) -> None:
    images = make(s3_store_thread_pools=1)
    proxy.fail_request(BODY, how=How.DAMAGE, times=None)
    with pytest.raises(exceptions.BackendException, match="damaged in transit"):
        images.add("damaged", image(size))
    targets = [request.target for request in proxy.requests if request.method == "PUT"]
    assert targets.count(targets[0]) >= 2
    assert service.listing() == []


# -- buckets


@OPERATIONS
def test_bucket_that_goes_is_created_again(
    make: Callable[..., Images], service: Service, size: int, operation: str
) -> None:
    bucket = f"{BUCKET}-going"
    images = make(s3_store_bucket=bucket, s3_store_create_bucket_on_put=True)
    images.delete(images.add("x", b"data"))
    service.client.delete_bucket(Bucket=bucket)
    data = image(size)
    try:
        uri = images.add("x", data)
        check_bytes(images.read(uri), data)
        images.delete(uri)
    finally:
        service.client.delete_bucket(Bucket=bucket)


@OPERATIONS
def test_bucket_that_goes_and_may_not_be_created(
    make: Callable[..., Images],
    service: Service,
    caplog: pytest.LogCaptureFixture,
    size: int,
    operation: str,
) -> None:
    """Nothing was stored, so there is nothing to look for."""
    bucket = f"{BUCKET}-gone"
    images = make(s3_store_bucket=bucket)
    service.client.create_bucket(Bucket=bucket)
    images.delete(images.add("x", b"data"))
    service.client.delete_bucket(Bucket=bucket)
    with pytest.raises(exceptions.BackendException, match="s3_store_create_bucket_on_put"):
        images.add("x", image(size))
    assert not caplog.records


def test_bucket_that_goes_during_an_upload(make: Callable[..., Images], service: Service) -> None:
    """That upload fails, and the next one creates the bucket."""
    bucket = f"{BUCKET}-sudden"
    images = make(s3_store_bucket=bucket, s3_store_create_bucket_on_put=True)
    answers = Answers(images, "CompleteMultipartUpload", 404, "NoSuchBucket", times=1)
    with pytest.raises(exceptions.BackendException, match="NoSuchBucket"):
        images.add("x", image(PART + 5))
    assert answers.requests == 1
    service.client.delete_bucket(Bucket=bucket)
    images.delete(images.add("x", b"data"))
    service.client.delete_bucket(Bucket=bucket)
