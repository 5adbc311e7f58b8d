# SPDX-License-Identifier: Apache-2.0
"""Uploads to services, and through proxies, that answer in ways of their own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers._objects import body as body_module
from glance_store.testing.inputs import Source, check_bytes, image
from glance_store.transfer import retry
from tests.drivers.s3.objects import Call, Objects, document, refusal
from tests.drivers.s3.service import PATIENT, without_pauses
from tests.services.http_server import Answer
from tests.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.conftest import Images

pytest.importorskip("boto3")

MIB = 1024 * 1024
PART = 5 * MIB
IN_PARTS = {"s3_store_large_object_size": 5, "s3_store_large_object_chunk_size": 5}
CLEAN = (exceptions.GlanceStoreException, exceptions.BackendException)
PAGE = b"<html><body>please log in</body></html>"
SIZES = pytest.mark.parametrize("size", [1000, PART + 5], ids=["put", "parts"])


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)


def creating(size: int) -> str:
    """Return the operation that creates an object of a size."""
    return "PutObject" if size < PART else "CompleteMultipartUpload"


def some(operation: str, *answers: Answer | None) -> Callable[[Call], Answer | None]:
    """Return a quirk that gives each of these answers once, and None to let the service answer."""
    left = list(answers)

    def quirk(call: Call) -> Answer | None:
        return left.pop(0) if call.operation == operation and left else None

    return quirk


def always(operation: str, answer: Answer) -> Callable[[Call], Answer | None]:
    """Return a quirk that always gives the same answer."""
    return lambda call: answer if call.operation == operation else None


def nothing_left(objects: Objects) -> bool:
    return not objects.objects and not objects.uploads


# -- answers that lack what they must have


@pytest.mark.parametrize("page", [PAGE, b"<p>please log in<br>", b"please log in", b""])
@pytest.mark.parametrize(
    "operation", ["CreateMultipartUpload", "CompleteMultipartUpload", "UploadPart"]
)
def test_page_of_somebody_else(
    objects: Objects, at: Callable[..., Images], operation: str, page: bytes
) -> None:
    """Of a proxy, with 200: it is no success, and nothing is left."""
    objects.quirk = always(operation, Answer(200, page, {"Content-Type": "text/html"}))
    with pytest.raises(CLEAN):
        at(**IN_PARTS).add("image", image(PART + 5))
    assert objects.asked(operation)
    assert nothing_left(objects)


def test_page_in_the_place_of_an_object(objects: Objects, at: Callable[..., Images]) -> None:
    objects.quirk = always("PutObject", Answer(200, PAGE))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="has no ETag"):
        at().add("image", b"data")
    assert nothing_left(objects)


@pytest.mark.parametrize("etag", ['""', ""])
def test_object_with_an_empty_etag(objects: Objects, at: Callable[..., Images], etag: str) -> None:
    objects.quirk = always("PutObject", Answer(200, headers={"ETag": etag}))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="has no ETag"):
        at(s3_store_retry_timeout=0).add("image", b"data")


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ("PutObject", 1000),
        ("CreateMultipartUpload", PART + 5),
        ("UploadPart", PART + 5),
        ("CompleteMultipartUpload", PART + 5),
    ],
)
def test_page_that_comes_once(
    objects: Objects, at: Callable[..., Images], operation: str, size: int
) -> None:
    """The same request is sent again, and all is well."""
    objects.quirk = some(operation, Answer(200, PAGE))
    data = image(size)
    uri = at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", data)
    check_bytes(objects.objects["image"].content, data)
    assert uri.endswith("/image")
    assert not objects.uploads


def test_answer_that_is_lacking_and_true(objects: Objects, at: Callable[..., Images]) -> None:
    """The object is there: nothing has failed."""

    def joined_silently(call: Call) -> Answer | None:
        if call.operation != "CompleteMultipartUpload":
            return None
        objects.join(call.query["uploadId"])
        return Answer(200, PAGE)

    objects.quirk = joined_silently
    at(**IN_PARTS).add("image", image(PART + 5))
    check_bytes(objects.objects["image"].content, image(PART + 5))
    assert not objects.asked("AbortMultipartUpload")


def test_tag_that_is_not_known_yet(objects: Objects, at: Callable[..., Images]) -> None:
    """The RADOS gateway 16.2 has no value for it when it has joined the parts."""

    def without_tag(call: Call) -> Answer | None:
        if call.operation != "CompleteMultipartUpload":
            return None
        objects.join(call.query["uploadId"])
        return document("CompleteMultipartUploadResult", "<Key>image</Key><ETag></ETag>")

    objects.quirk = without_tag
    at(**IN_PARTS, s3_store_retry_timeout=0).add("image", image(PART + 5))
    # It counts as it is: no look at the object follows.
    assert objects.calls[-1].operation == "CompleteMultipartUpload"


# -- a last step whose outcome is not known


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(
    "busy",
    [
        refusal(500, "InternalError", "This multipart completion is already in progress"),
        refusal(409, "OperationAborted", "A conflicting operation is in progress"),
        refusal(400, "InvalidRequest", "The completion of this upload is in progress"),
        refusal(503),
    ],
    ids=["500", "409", "400", "503"],
)
@pytest.mark.parametrize("unclear", [504, 502, 408, 0], ids=["504", "502", "408", "cut"])
def test_parts_that_are_joined_behind_a_proxy(
    objects: Objects, at: Callable[..., Images], unclear: int, busy: Answer
) -> None:
    """Nobody aborts an upload that is being joined, and the answer comes in the end."""
    asked: list[Call] = []

    def joining(call: Call) -> Answer | None:
        if call.operation != "CompleteMultipartUpload":
            return None
        asked.append(call)
        if len(asked) == 5:
            objects.join(call.query["uploadId"])
        return Answer(unclear, PAGE) if len(asked) == 1 else busy

    objects.quirk = joining
    data = image(PART + 5)
    at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", data)
    check_bytes(objects.objects["image"].content, data)
    assert len(asked) == 5
    assert not objects.asked("AbortMultipartUpload")


@pytest.mark.usefixtures("brisk")
def test_parts_that_are_gone_while_they_are_joined(
    objects: Objects, at: Callable[..., Images]
) -> None:
    """The upload is no more, and the object is not there yet: the service is at it."""
    upload: list[Any] = []

    def joining(call: Call) -> Answer | None:
        if call.operation == "CompleteMultipartUpload" and not upload:
            upload.append(objects.uploads.pop(call.query["uploadId"]))
            return Answer(504)
        if call.operation == "HeadObject" and len(objects.asked("CompleteMultipartUpload")) == 4:
            content = b"".join(upload[0].parts[number] for number in sorted(upload[0].parts))
            objects.put("image", content, upload[0].metadata)
        return None

    objects.quirk = joining
    at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", image(PART + 5))
    check_bytes(objects.objects["image"].content, image(PART + 5))
    assert not objects.asked("AbortMultipartUpload")


# -- the condition


@SIZES
@pytest.mark.parametrize("status", [501, 405, 400, 412])
def test_condition_stays_after_another_trouble(
    objects: Objects, at: Callable[..., Images], size: int, status: int
) -> None:
    """One answer says little: the upload that comes later has the condition, and is overtaken."""
    images = at(**IN_PARTS)
    objects.quirk = some(creating(size), Answer(status))
    images.add("first", image(size))
    assert "first" in objects.objects

    def overtake(call: Call) -> None:
        if call.operation == creating(size):
            objects.put("second", b"the other one")

    objects.quirk = overtake
    with pytest.raises(exceptions.Duplicate):
        images.add("second", image(size))
    assert objects.objects["second"].content == b"the other one"
    assert not objects.uploads


@SIZES
def test_condition_that_fails_now_and_then(
    objects: Objects, at: Callable[..., Images], caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """In the long life of a process: what has been taken in between counts more."""
    images = at(**IN_PARTS)
    for number in range(3):
        objects.quirk = some(creating(size), Answer(501))
        images.add(f"refused-{number}", image(size))
        images.add(f"taken-{number}", image(size))
    assert "if-none-match" in objects.asked(creating(size))[-1].headers
    assert "If-None-Match" not in caplog.text


@SIZES
@pytest.mark.parametrize("status", [501, 405, 400])
def test_condition_that_fails_once_for_each_of_many_uploads(
    objects: Objects, at: Callable[..., Images], size: int, status: int
) -> None:
    """An answer that comes with and without the condition proves nothing about it."""
    images = at(**IN_PARTS, s3_store_retry_timeout=0)
    objects.quirk = always(creating(size), Answer(status))
    for number in range(4):
        with pytest.raises(CLEAN):
            images.add(f"image-{number}", image(size))
    objects.quirk = None
    images.add("later", image(size))
    assert "if-none-match" in objects.asked(creating(size))[-1].headers


@SIZES
@pytest.mark.parametrize("status", [501, 405, 400])
def test_service_that_never_knows_the_condition(
    objects: Objects,
    at: Callable[..., Images],
    caplog: pytest.LogCaptureFixture,
    size: int,
    status: int,
) -> None:
    """It is asked with it for two uploads, and the operator is told once."""
    operation = creating(size)

    def unconditional(call: Call) -> Answer | None:
        known = call.operation != operation or "if-none-match" not in call.headers
        return None if known else Answer(status)

    objects.quirk = unconditional
    images = at(**IN_PARTS)
    for number in range(4):
        data = image(size, seed=number)
        images.add(f"image-{number}", data)
        check_bytes(objects.objects[f"image-{number}"].content, data)
        assert caplog.text.count("If-None-Match") == (number > 0)
    conditions = ["if-none-match" in call.headers for call in objects.asked(operation)]
    assert conditions == [True, False, True, False, False, False]
    with pytest.raises(exceptions.Duplicate):
        images.add("image-0", image(size))


# -- rights that few keys have


def without_listing(call: Call, objects: Objects) -> Answer | None:
    """Answer as Amazon does to who may not list the bucket: 403 for an object that is not there."""
    missing = call.operation == "HeadObject" and call.key not in objects.objects
    return Answer(403) if missing else None


@SIZES
def test_key_that_may_not_list_the_bucket(
    objects: Objects, at: Callable[..., Images], size: int
) -> None:
    """The condition keeps the objects of others from being replaced."""
    objects.quirk = lambda call: without_listing(call, objects)
    images = at(**IN_PARTS)
    data = image(size)
    uri = images.add("image", data)
    check_bytes(images.read(uri), data)
    with pytest.raises(exceptions.Duplicate):
        images.add("image", data)

    def overtake(call: Call) -> Answer | None:
        if call.operation == creating(size):
            objects.put("other", b"the other one")
        return without_listing(call, objects)

    objects.quirk = overtake
    with pytest.raises(exceptions.Duplicate):
        images.add("other", data)
    assert objects.objects["other"].content == b"the other one"
    assert not objects.uploads


@SIZES
@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("unclear", [503, 0], ids=["503", "cut"])
@pytest.mark.parametrize("done", [True, False])
def test_key_that_may_not_list_has_as_much_patience(
    objects: Objects, at: Callable[..., Images], size: int, unclear: int, done: bool
) -> None:
    """Whether the last request has been carried out or not: its own object it may see."""
    left = [None, None]

    def quirk(call: Call) -> Answer | None:
        if call.operation == creating(size) and left:
            left.pop()
            if done and not left:
                objects.usual(call)
            return Answer(unclear)
        return without_listing(call, objects)

    objects.quirk = quirk
    at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", image(size))
    check_bytes(objects.objects["image"].content, image(size))
    assert len(objects.asked(creating(size))) == (2 if done else 3)
    assert not objects.uploads


@SIZES
def test_key_that_may_not_list_where_the_condition_is_unknown(
    objects: Objects, at: Callable[..., Images], caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """Whether the name is free cannot be found out: nothing is risked, and the error says why."""

    def blind(call: Call) -> Answer | None:
        if call.operation == creating(size) and "if-none-match" in call.headers:
            return refusal(501, "NotImplemented")
        return without_listing(call, objects)

    objects.quirk = blind
    images = at(**IN_PARTS)
    for reason in ("501 NotImplemented", ""):
        with pytest.raises(exceptions.Forbidden, match=rf"{reason}.*s3:ListBucket"):
            images.add("image", image(size))
        assert nothing_left(objects)
        assert "perhaps" not in caplog.text
        # As after it was refused to a key that sees more.
        images.store._client().condition.give_up()


def test_key_that_may_do_nothing(objects: Objects, at: Callable[..., Images]) -> None:
    objects.quirk = lambda _call: refusal(403, "AccessDenied")
    with pytest.raises(exceptions.Forbidden, match="check the credentials"):
        at().add("image", b"data")
    assert len(objects.calls) <= 5


@pytest.mark.parametrize("operation", ["ListParts", "ListMultipartUploads"])
def test_clean_up_without_the_rights_to_list(
    objects: Objects, at: Callable[..., Images], caplog: pytest.LogCaptureFixture, operation: str
) -> None:
    """An upload does not need them: what has failed is told, and what can be removed is."""
    failing = refusal(403, "AccessDenied", "not to list")
    objects.quirk = always(operation, failing)
    images = at(**IN_PARTS)
    source = Source(image(2 * PART), end=ValueError("gone"))
    with pytest.raises(ValueError, match="gone"):
        images.add("image", source, 3 * PART)
    assert nothing_left(objects)
    assert "A failed upload has left" not in caplog.text
    assert "Cannot remove what a failed upload left" not in caplog.text


@pytest.mark.usefixtures("brisk")
def test_upload_of_unknown_id_without_the_rights_to_list(
    objects: Objects, at: Callable[..., Images]
) -> None:
    """The answer to the beginning was lost; that cannot be swept, and fails nothing."""

    def lose(call: Call) -> Answer | None:
        if call.operation == "CreateMultipartUpload" and not objects.uploads:
            objects.usual(call)
            return Answer(0)
        return refusal(403, "AccessDenied") if call.operation.startswith("List") else None

    objects.quirk = lose
    data = image(PART + 5)
    at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", data)
    check_bytes(objects.objects["image"].content, data)
    assert len(objects.asked("CreateMultipartUpload")) == 2
    assert objects.asked("ListMultipartUploads")


# -- checksums


def locked(call: Call) -> Answer | None:
    """Answer as a bucket with Object Lock does."""
    known = "content-md5" in call.headers or any("x-amz-checksum-" in name for name in call.headers)
    if call.operation not in ("PutObject", "UploadPart") or known:
        return None
    text = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests"
    return refusal(400, "InvalidRequest", text)


@SIZES
@pytest.mark.parametrize("verified", [True, False])
def test_bucket_that_wants_a_checksum(
    objects: Objects, at: Callable[..., Images], size: int, verified: bool
) -> None:
    """On plain http the payload is signed instead; the store learns what the bucket wants."""
    objects.quirk = locked
    images = at(**IN_PARTS, s3_store_verify_parts=verified, s3_store_retry_timeout=0)
    for name in ("first", "second"):
        images.add(name, image(size))
        check_bytes(objects.objects[name].content, image(size))
    operation = "PutObject" if size < PART else "UploadPart"
    sums = ["content-md5" in call.headers for call in objects.asked(operation)]
    # Each that was on its way when the first was refused, and then no more.
    assert sums.count(False) <= (1 if size < PART else 2)
    assert sums.count(True) == (2 if size < PART else 4)
    # The condition has nothing to do with it.
    assert images.store._client().condition.known


def sums_of(call: Call) -> str:
    """Return which checksum a request has, and whether it was sent without one."""
    names = [name for name in call.headers if name == "content-md5" or "-checksum-crc" in name]
    return " ".join(names) or "none"


@SIZES
@pytest.mark.parametrize("refused", [(501, "NotImplemented"), (403, "SignatureDoesNotMatch")])
def test_service_without_the_newer_checksums(
    tls_objects: tuple[Objects, Callable[..., Images]],
    caplog: pytest.LogCaptureFixture,
    size: int,
    refused: tuple[int, str],
) -> None:
    """It gets MD5, and the operator is told once. A proxy may also drop the signed header."""
    objects, at = tls_objects
    crc = f"x-amz-checksum-{body_module.crc_name().lower()}"

    def older(call: Call) -> Answer | None:
        newer = crc in call.headers or "x-amz-checksum-algorithm" in call.headers
        return refusal(*refused) if newer else None

    objects.quirk = older
    images = at(**IN_PARTS)
    for number in range(3):
        images.add(f"image-{number}", image(size, seed=number))
        check_bytes(objects.objects[f"image-{number}"].content, image(size, seed=number))
    assert caplog.text.count("does not support the newer checksums") == 1
    operation = "PutObject" if size < PART else "UploadPart"
    assert sums_of(objects.asked(operation)[-1]) == "content-md5"
    # For want of the checksum nobody gives up the condition.
    assert images.store._client().condition.known


@SIZES
def test_bodies_over_tls_have_the_newer_checksum(
    tls_objects: tuple[Objects, Callable[..., Images]], size: int
) -> None:
    objects, at = tls_objects
    at(**IN_PARTS).add("image", image(size))
    crc = f"x-amz-checksum-{body_module.crc_name().lower()}"
    operation = "PutObject" if size < PART else "UploadPart"
    assert {sums_of(call) for call in objects.asked(operation)} == {crc}
    for call in objects.asked("CreateMultipartUpload"):
        assert call.headers["x-amz-checksum-algorithm"] == body_module.crc_name()


# -- what passes


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("status", [520, 522, 524, 527, 530])
@pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload", "UploadPart"])
def test_trouble_of_a_proxy_passes(
    objects: Objects, at: Callable[..., Images], status: int, operation: str
) -> None:
    objects.quirk = some(operation, *3 * [Answer(status, b"error code: 520")])
    data = image(1000 if operation == "PutObject" else PART + 5)
    at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", data)
    check_bytes(objects.objects["image"].content, data)
    assert len(objects.asked(operation)) > 3


def test_part_waits_for_as_long_as_the_service_wants(
    objects: Objects, at: Callable[..., Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(retry.Patience, "wait", lambda _self, seconds: pauses.append(seconds))
    objects.quirk = some("UploadPart", refusal(503, "SlowDown", Retry_After="11"))
    at(**IN_PARTS, s3_store_retry_timeout=PATIENT).add("image", image(PART + 5))
    assert pauses == [11]
    assert "image" in objects.objects


# -- the parts of one upload, and many uploads


@pytest.mark.parametrize("refused", [1, 2])
def test_failure_of_a_part_ends_the_pauses_of_the_others(
    objects: Objects, at: Callable[..., Images], monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """They would be tried again for an hour, in vain."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 3600)
    monkeypatch.setattr(retry, "_LONGEST_PAUSE", 3600)
    waiting = threading.Event()
    pause = retry.Patience.wait

    def wait(patience: retry.Patience, seconds: float) -> None:
        waiting.set()
        pause(patience, seconds)

    monkeypatch.setattr(retry.Patience, "wait", wait)

    def quirk(call: Call) -> Answer | None:
        if call.operation != "UploadPart":
            return None
        if call.query["partNumber"] == str(refused):
            assert waiting.wait(PATIENCE)
            return refusal(403, "AccessDenied")
        return Answer(503)

    objects.quirk = quirk
    images = at(**IN_PARTS, s3_store_thread_pools=2, s3_store_retry_timeout=7200)
    caught: list[BaseException] = []

    def add() -> None:
        with pytest.raises(exceptions.Forbidden) as failed:
            images.add("image", image(2 * PART))
        caught.append(failed.value)

    thread = threading.Thread(target=add, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert caught, "the upload waits for the part that is tried again"
    numbers = [call.query["partNumber"] for call in objects.asked("UploadPart")]
    assert sorted(numbers) == ["1", "2"]
    assert nothing_left(objects)


def test_parts_of_one_size(objects: Objects, at: Callable[..., Images]) -> None:
    """Where the option asks for them; else they grow when there are many."""
    data = image(12 * PART // 2 + 3)
    for equal in (True, False):
        images = at(**IN_PARTS, s3_store_equal_parts=equal)
        # As after 900 parts.
        writer = images.store.open_writer("sizes", 0)
        grown = writer.block_size_at(10_000 * PART // 2)
        assert (grown == PART) is equal
        objects.calls.clear()
        images.add("image", Source(data), 0)
        parts = objects.asked("UploadPart")
        sizes = [len(call.body) for call in sorted(parts, key=lambda c: c.query["partNumber"])]
        assert set(sizes[:-1]) == {PART}
        check_bytes(objects.objects.pop("image").content, data)


@pytest.mark.parametrize("size", [12 * MIB, 0], ids=["known", "unknown"])
@pytest.mark.parametrize("large", [5, 100], ids=["parts", "one-put"])
def test_uploads_at_once_share_the_memory(
    objects: Objects, at: Callable[..., Images], large: int, size: int
) -> None:
    """Eight of them, each of which could have all of it."""
    images = at(**{**IN_PARTS, "s3_store_large_object_size": large}, s3_store_memory=16)
    memory = images.store._memory
    held: list[int] = []
    hold = memory._hold

    def watch(holder: object, more: int) -> None:
        hold(holder, more)
        held.append(memory.size - memory._free())

    memory._hold = watch  # type: ignore[method-assign]
    begun = threading.Barrier(8)
    images.add("first", b"data")

    def upload(number: int) -> None:
        begun.wait(PATIENCE)
        images.add(f"image-{number}", Source(image(12 * MIB, seed=number)), size)

    threads = [threading.Thread(target=upload, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: not any(thread.is_alive() for thread in threads), "all are stored")
    for number in range(8):
        check_bytes(objects.objects[f"image-{number}"].content, image(12 * MIB, seed=number))
    assert 0 < max(held) <= memory.size == 16 * MIB
    assert memory._free() == memory.size
