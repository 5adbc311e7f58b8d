# SPDX-License-Identifier: Apache-2.0
"""Services, proxies and rights that differ from those of Amazon in some detail."""

from __future__ import annotations

import contextlib
import gzip
import socket
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store._drivers.s3 import session
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.objects import Call, Objects, metadata, refusal
from tests.drivers.s3.service import PATIENT
from tests.drivers.s3.unit.test_reading import changing, in_order
from tests.drivers.s3.unit.test_writing import IN_PARTS, PART, always, some
from tests.services.http_server import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.conftest import Images

pytest.importorskip("boto3")

DATA = image(5000)
LOST = Answer(0)


# -- bucket and rights


def test_bucket_that_may_not_be_looked_at(objects: Objects, at: Callable[..., Images]) -> None:
    """It needs s3:ListBucket, which storing, reading and deleting do not."""

    def unlisted(call: Call) -> Answer | None:
        reads = call.operation in ("HeadObject", "GetObject")
        hidden = reads and call.key not in objects.objects
        return Answer(403) if hidden or call.operation == "HeadBucket" else None

    objects.quirk = unlisted
    images = at(s3_store_create_bucket_on_put=True)
    uri = images.add("image", DATA)
    with pytest.raises(exceptions.Duplicate):
        images.add("image", DATA)
    check_bytes(images.read(uri), DATA)
    images.delete(uri)
    assert not objects.objects
    # What is not there cannot be told from what is hidden.
    images.delete(uri)


@pytest.mark.parametrize("tenant", ["tenant", ""])
def test_bucket_of_another_tenant(objects: Objects, at: Callable[..., Images], tenant: str) -> None:
    """As Ceph names it; the client library itself would refuse the name."""
    bucket = f"{tenant}:images"
    images = at(s3_store_bucket=bucket, s3_store_bucket_url_format="auto")
    uri = images.add("image", DATA)
    assert uri == objects.uri("image").replace("/images/", f"/{bucket}/")
    assert images.read(uri) == DATA
    assert [found.uri for found in images.store.images()] == [uri]
    images.delete(uri)
    assert objects.objects == {}
    targets = {request.target.partition("?")[0] for request in objects.server.requests}
    assert targets == {f"/{tenant}%3Aimages{name}" for name in ("", "/image")}


@pytest.mark.parametrize("status", [405, 501])
def test_upload_where_head_is_refused(
    objects: Objects, at: Callable[..., Images], status: int
) -> None:
    """By a proxy, or now and then by the service, as R2 does; downloads work as well."""
    objects.quirk = always("HeadObject", Answer(status))
    images = at()
    uri = images.add("image", DATA)
    assert images.read(uri) == DATA
    empty = images.add("empty", b"")
    assert images.read(empty) == b""
    for name in ("image", "empty"):
        with pytest.raises(exceptions.Duplicate):
            images.add(name, DATA)
    lost = [Answer(0)]

    def quirk(call: Call) -> Answer | None:
        if call.operation == "PutObject" and lost:
            objects.usual(call)
            return lost.pop()
        return Answer(status) if call.operation == "HeadObject" else None

    objects.quirk = quirk
    assert images.read(images.add("other", DATA)) == DATA


@pytest.mark.parametrize(
    ("code", "healthy"),
    [
        ("AccessDenied", True),
        ("InvalidAccessKeyId", False),
        ("SignatureDoesNotMatch", False),
        ("", False),
    ],
)
def test_health_without_the_right_to_look_at_the_bucket(
    objects: Objects, at: Callable[..., Images], code: str, healthy: bool
) -> None:
    """A service that stores and serves images is not taken out of use for it."""
    answers = {"HeadBucket": Answer(403), "ListObjectsV2": refusal(403, code)}
    objects.quirk = lambda call: answers.get(call.operation)
    store = at().store
    if healthy:
        assert "the key may not look at" in store.check_health()
        return
    with pytest.raises(exceptions.Forbidden):
        store.check_health()


@pytest.mark.parametrize("there", [True, False])
def test_bucket_that_another_process_creates(
    objects: Objects, at: Callable[..., Images], there: bool
) -> None:
    """Not all services have the word of Amazon for one's own bucket."""
    looks = [Answer(404), Answer(200 if there else 403)]

    def quirk(call: Call) -> Answer | None:
        if call.operation == "HeadBucket":
            return looks.pop(0)
        return refusal(409, "BucketAlreadyExists") if call.operation == "CreateBucket" else None

    objects.quirk = quirk
    images = at(s3_store_create_bucket_on_put=True)
    if there:
        images.add("image", DATA)
    else:
        with pytest.raises(exceptions.BackendException, match="BucketAlreadyExists"):
            images.add("image", DATA)
    assert ("image" in objects.objects) is there


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("size", [5000, PART + 5], ids=["put", "parts"])
def test_new_bucket_that_is_not_seen_yet(
    objects: Objects, at: Callable[..., Images], size: int
) -> None:
    first = "PutObject" if size < PART else "CreateMultipartUpload"
    objects.quirk = some(first, *4 * [refusal(404, "NoSuchBucket")])
    at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", image(size))
    assert "image" in objects.objects


# -- marks and tags


@pytest.mark.usefixtures("brisk")
def test_names_of_headers_that_are_written_otherwise(
    objects: Objects, at: Callable[..., Images]
) -> None:
    """As by MinIO, and by proxies: an upload still knows its own object."""

    def stored_in_silence(call: Call) -> Answer | None:
        if call.operation != "PutObject":
            return None
        objects.put(call.key, call.body, {k.title(): v for k, v in metadata(call).items()})
        return LOST

    objects.quirk = stored_in_silence
    at().add("image", DATA)
    check_bytes(objects.objects["image"].content, DATA)


@pytest.mark.parametrize("size", [5000, PART + 5], ids=["put", "parts"])
def test_service_without_metadata(objects: Objects, at: Callable[..., Images], size: int) -> None:
    """It shows no mark, and no condition keeps others away: the ETag is known as well."""

    def quirk(call: Call) -> Answer | None:
        if "if-none-match" in call.headers:
            return Answer(501)
        if call.operation != "HeadObject" or call.key not in objects.objects:
            return None
        found = objects.objects[call.key]
        length = str(len(found.content))
        return Answer(200, headers={"ETag": found.etag, "Content-Length": length})

    objects.quirk = quirk
    images = at(**IN_PARTS)
    for number in range(4):
        images.add(f"image-{number}", image(size))

    def overtaken(call: Call) -> Answer | None:
        answer = quirk(call)
        if answer is None and call.operation in ("PutObject", "CompleteMultipartUpload"):
            answer = objects.usual(call)
            objects.put(call.key, b"the other one")
        return answer

    objects.quirk = overtaken
    with pytest.raises(exceptions.Duplicate):
        images.add("other", image(size))
    assert objects.objects["other"].content == b"the other one"


def test_weak_tags_of_parts(objects: Objects, at: Callable[..., Images]) -> None:
    def weak(call: Call) -> Answer | None:
        if call.operation == "CompleteMultipartUpload" and b"W/" in call.body:
            return refusal(400, "InvalidPart")
        if call.operation != "UploadPart":
            return None
        return Answer(200, b"", {"ETag": f"W/{objects.usual(call).headers['ETag']}"})

    objects.quirk = weak
    data = image(PART + 5)
    at(**IN_PARTS).add("image", data)
    check_bytes(objects.objects["image"].content, data)


@pytest.mark.usefixtures("brisk")
def test_parts_that_are_not_seen_yet(objects: Objects, at: Callable[..., Images]) -> None:
    objects.quirk = some("CompleteMultipartUpload", refusal(400, "InvalidPart"))
    at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", image(PART + 5))
    assert "image" in objects.objects


@pytest.mark.parametrize("code", ["AccessDenied", "NotImplemented"])
def test_version_that_may_not_be_deleted(
    objects: Objects, at: Callable[..., Images], code: str
) -> None:
    """A failed upload is hidden where its version stays: its name is free again."""

    def versioned(call: Call) -> Answer | None:
        if call.operation == "PutObject":
            objects.put(call.key, call.body, {**metadata(call), "x-amz-version-id": "1"})
            return Answer(500)
        if call.operation == "HeadObject" and objects.objects and looks:
            return looks.pop()
        if call.operation == "DeleteObject" and "versionId" in call.query:
            return refusal(403, code)
        return None

    looks = [Answer(500)]
    objects.quirk = versioned
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        at(s3_store_retry_timeout=0).add("image", DATA)
    assert [set(call.query) for call in objects.asked("DeleteObject")] == [{"versionId"}, set()]
    assert not objects.objects


# -- words of refusals


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "XMinioAdminBucketQuotaExceeded", "Bucket quota exceeded"),
        (403, "QuotaExceed", ""),
        (403, "AccessDenied", "Cannot upload files, storage cap exceeded."),
        (409, "InsufficientCapacity", ""),
        (507, "XMinioStorageFull", ""),
    ],
)
def test_words_for_full(
    objects: Objects, at: Callable[..., Images], status: int, code: str, message: str
) -> None:
    objects.quirk = always("PutObject", refusal(status, code, message))
    with pytest.raises(exceptions.StorageFull, match=code):
        at(s3_store_retry_timeout=PATIENT).add("image", DATA)
    assert len(objects.asked("PutObject")) == 1


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "IncompleteBody"),
        (400, "RequestLimitExceeded"),
        (403, "RequestThrottled"),
        (498, ""),
        (499, ""),
        (599, ""),
    ],
)
def test_words_for_later(
    objects: Objects, at: Callable[..., Images], status: int, code: str
) -> None:
    objects.quirk = some("PutObject", refusal(status, code))
    at(s3_store_retry_timeout=PATIENT).add("image", DATA)
    assert len(objects.asked("PutObject")) == 2


@pytest.mark.usefixtures("brisk")
def test_body_that_did_not_arrive(objects: Objects, at: Callable[..., Images]) -> None:
    message = "The request body was too small"
    objects.quirk = some("UploadPart", *2 * [refusal(400, "InvalidRequest", message)])
    at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", image(PART + 5))
    assert "image" in objects.objects


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "UnsupportedHeader"), (400, "MalformedHeaderValue"), (405, ""), (417, "")],
)
def test_words_for_an_unknown_condition(
    objects: Objects, at: Callable[..., Images], status: int, code: str
) -> None:
    def quirk(call: Call) -> Answer | None:
        unknown = {"if-match", "if-none-match"} & set(call.headers)
        return refusal(status, code) if unknown else None

    objects.quirk = quirk
    images = at()
    check_bytes(images.read(images.add("image", DATA)), DATA)


@pytest.mark.parametrize("size", [5000, PART + 5], ids=["put", "parts"])
def test_name_that_is_taken_without_being_seen_yet(
    objects: Objects, at: Callable[..., Images], size: int
) -> None:
    """The server that is asked for it lags behind: what the other one has is not overwritten."""
    objects.put("image", b"other")
    # At the beginning, before the last request, and after it was refused.
    objects.quirk = some("HeadObject", *[Answer(404)] * 4)
    with pytest.raises(exceptions.Duplicate):
        at(**IN_PARTS).add("image", image(size))
    assert objects.objects["image"].content == b"other"


def test_object_in_an_archive(objects: Objects, at: Callable[..., Images]) -> None:
    """Its credentials are as good as ever."""
    objects.put("image", DATA)
    objects.quirk = always("GetObject", refusal(403, "InvalidObjectState"))
    with pytest.raises(exceptions.BackendException, match=r"InvalidObjectState.*archive") as failed:
        at().read(objects.uri("image"))
    assert "credentials" not in str(failed.value)


@pytest.mark.parametrize("kind", ["GLACIER", "DEEP_ARCHIVE"])
@pytest.mark.parametrize("restored", [False, True])
def test_archived_object_is_refused_before_its_first_chunk(
    objects: Objects, at: Callable[..., Images], kind: str, restored: bool
) -> None:
    """The image service has said 200 by the time it asks for that."""
    objects.put("image", DATA).metadata["x-amz-storage-class"] = kind
    if not restored:
        objects.quirk = always("GetObject", refusal(403, "InvalidObjectState"))
    images = at()
    assert images.size(objects.uri("image")) == len(DATA)
    with contextlib.nullcontext() if restored else pytest.raises(exceptions.BackendException):
        images.get(objects.uri("image"))
    if restored:
        assert images.read(objects.uri("image")) == DATA


# -- reading


@pytest.mark.parametrize("status", [200, 206])
def test_bytes_that_something_has_packed(
    objects: Objects, at: Callable[..., Images], status: int
) -> None:
    """They are no image data, also where they come as the range that was asked for."""
    stored = objects.put("image", DATA)
    headers = {"ETag": stored.etag, "Content-Encoding": "gzip"}
    ranged = {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"} if status == 206 else {}
    packed = Answer(status, gzip.compress(DATA), {**headers, **ranged}, framing="close")
    objects.quirk = always("GetObject", packed)
    received: list[bytes] = []
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="gzip"):
        received.extend(at().get(objects.uri("image")))
    assert received == []


@pytest.mark.parametrize("named", ["gzip", "aws-chunked", "aws-chunked, gzip"])
def test_object_that_is_stored_packed(
    objects: Objects, at: Callable[..., Images], named: str
) -> None:
    """Or is said to be: its bytes are those that are stored."""
    stored = objects.put("image", DATA, {"Content-Encoding": named})

    def quirk(_call: Call) -> Answer:
        headers = {**stored.metadata, "ETag": stored.etag}
        return Answer(200, DATA, headers)

    objects.quirk = changing("GetObject", quirk)
    check_bytes(at().read(objects.uri("image")), DATA)


@pytest.mark.parametrize("status", [403, 405, 501])
@pytest.mark.parametrize("content", [DATA, b""], ids=["data", "empty"])
def test_head_that_is_refused(
    objects: Objects, at: Callable[..., Images], status: int, content: bytes
) -> None:
    """Other requests tell the size, and delete."""
    objects.put("image", content)
    objects.quirk = always("HeadObject", Answer(status))
    images = at()
    assert images.size(objects.uri("image")) == len(content)
    check_bytes(images.read(objects.uri("image")), content)
    images.delete(objects.uri("image"))
    assert not objects.objects


@pytest.mark.parametrize("status", [403, 405, 501])
def test_original_that_may_not_be_looked_at(
    objects: Objects, at: Callable[..., Images], status: int
) -> None:
    """The caller reads and writes then."""
    objects.put("image", DATA)
    objects.quirk = lambda call: (
        Answer(status) if (call.operation, call.key) == ("HeadObject", "image") else None
    )
    images = at()
    place = images.at(objects.uri("image"))
    assert images.store.copy_from(images.store, place, "copy", lambda _length: None) is None


@pytest.mark.parametrize("length", ["", "-1", "many", "0"])
def test_length_that_makes_no_sense(
    objects: Objects, at: Callable[..., Images], length: str
) -> None:
    stored = objects.put("image", DATA)
    headers = {"ETag": stored.etag, "Content-Length": length}
    objects.quirk = always("HeadObject", Answer(200, headers=headers))
    images = at()
    assert images.size(objects.uri("image")) == len(DATA)
    check_bytes(images.read(objects.uri("image")), DATA)


@pytest.mark.parametrize("name", ["missing-meta", "mp-parts-count", "tagging-count"])
def test_other_numbers_that_are_none(
    objects: Objects, at: Callable[..., Images], name: str
) -> None:
    objects.put("image", DATA, {f"x-amz-{name}": "some"})
    check_bytes(at().read(objects.uri("image")), DATA)


def test_range_that_is_refused(objects: Objects, at: Callable[..., Images]) -> None:
    objects.put("image", DATA)
    objects.quirk = lambda call: refusal(501, "NotImplemented") if "range" in call.headers else None
    check_bytes(at().read(objects.uri("image"), offset=1000, chunk_size=100), DATA[1000:1100])


def test_time_that_nobody_understands(objects: Objects, at: Callable[..., Images]) -> None:
    objects.put("image", DATA, {"Last-Modified": "yesterday, about noon"})
    check_bytes(at().read(objects.uri("image")), DATA)
    # Never old enough to be removed for its age.
    assert session._parse_time("yesterday") > session._parse_time("2999-01-01T00:00:00Z")


# -- deleting


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("lost", [True, False])
def test_deletion_of_which_the_answer_is_lost(
    objects: Objects, at: Callable[..., Images], lost: bool
) -> None:
    """The next try finds nothing, and says so in some services. That is a success."""
    objects.put("image", DATA)
    answers = [LOST, refusal(404, "NoSuchKey")] if lost else [refusal(404, "NoSuchKey")]
    objects.quirk = in_order("DeleteObject", *answers)
    images = at(s3_store_retry_timeout=PATIENT)
    if lost:
        images.delete(objects.uri("image"))
    else:
        with pytest.raises(exceptions.NotFound):
            images.delete(objects.uri("image"))


def test_a_service_that_wants_parts_of_one_size(
    at: Callable[..., Images], objects: Objects
) -> None:
    """To send them again does not help; what does is said."""
    words = "All non-trailing parts must have the same length."
    objects.quirk = always("CompleteMultipartUpload", refusal(400, "InvalidPart", words))
    with pytest.raises(exceptions.BackendException, match="set s3_store_equal_parts") as caught:
        at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", image(PART + 5))
    assert not isinstance(caught.value, exceptions.BackendUnavailable)
    assert len(objects.asked("CompleteMultipartUpload")) == 1
    assert (objects.objects, objects.uploads) == ({}, {})


def test_idle_connections_are_probed(
    at: Callable[..., Images], socket_options: list[tuple[object, ...]]
) -> None:
    """A firewall that has forgotten one would let the next request wait for its time to read."""
    at().add("image", b"data")
    assert (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60) in socket_options
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in socket_options
