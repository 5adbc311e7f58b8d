# SPDX-License-Identifier: Apache-2.0
"""Uploads to a service that does what no real one can be made to do at a certain moment."""

from __future__ import annotations

import datetime
import types
from collections.abc import Callable
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers._objects import claim
from glance_store._drivers.s3 import upload as upload_module
from glance_store._drivers.s3.bucket import Bucket
from glance_store._drivers.s3.client import Client, Settings
from glance_store._drivers.s3.clock import ServiceClock, clock_of
from glance_store._drivers.s3.endpoint import parse
from glance_store._drivers.s3.upload import Upload
from glance_store.transfer import retry

botocore_exceptions = pytest.importorskip("botocore.exceptions")

KEY = "image"
NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.timezone.utc)


def error(code: str, status: int, **headers: str) -> Exception:
    answer = {
        "Error": {"Code": code, "Message": "words"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    made: Exception = botocore_exceptions.ClientError(answer, "Operation")
    return made


def timeout() -> Exception:
    made: Exception = botocore_exceptions.ReadTimeoutError(endpoint_url="http://x")
    return made


class FakeS3:
    """Answers as it was told, one after the other, and then as an empty service does."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._told: dict[str, list[Any]] = {}
        self._usual: dict[str, Any] = {
            "head_object": error("404", 404),
            "head_bucket": {},
            "create_multipart_upload": {"UploadId": "ours", "ResponseMetadata": {}},
            "upload_part": {"ETag": "etag"},
            "complete_multipart_upload": {"ETag": "etag"},
            "put_object": {"ETag": "etag"},
            "abort_multipart_upload": {},
            "list_parts": error("NoSuchUpload", 404),
            "list_multipart_uploads": {},
            "delete_object": {},
        }

    def tell(self, operation: str, *outcomes: Any) -> None:
        """Have the next calls of an operation return something, or raise it."""
        assert operation in self._usual
        self._told.setdefault(operation, []).extend(outcomes)

    def names(self) -> list[str]:
        """The operations that were called."""
        return [name for name, _arguments in self.calls]

    def aborted(self) -> list[str]:
        """The ids of the uploads that were aborted."""
        return [
            arguments["UploadId"]
            for name, arguments in self.calls
            if name == "abort_multipart_upload"
        ]

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self.calls.append((operation, arguments))
            assert len(self.calls) < 1000, "this goes on for ever"
            told = self._told.get(operation)
            outcome = told.pop(0) if told else self._usual[operation]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return call


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "_RECHECKS", (0, 0, 0))
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0)


@pytest.fixture
def s3() -> FakeS3:
    return FakeS3()


def client_of(s3: FakeS3, **settings: Any) -> Client:
    """Return a client that tries everything once, unless it is told otherwise."""
    usual: dict[str, Any] = {
        "endpoint": parse("http://x", ""),
        "access_key": None,
        "secret_key": None,
        "addressing": "path",
        "authorities": None,
        "request_checksums": "when_required",
        "response_checksums": "when_required",
        "patience": 0,
        "attempts": None,
        "payer": "",
        "connect_timeout": 1,
        "read_timeout": 1,
        "proxies": {},
        "concurrency": 1,
    }
    return Client(s3, Settings(**{**usual, **settings}))


def upload_to(s3: FakeS3, **settings: Any) -> Upload:
    return Upload(client_of(s3, **settings), Bucket("bucket", may_create=False), KEY)


def put_part(upload: Upload, number: int = 1) -> None:
    upload.begin()
    upload.put_part(number, memoryview(b"data"))


# -- beginning


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (error("AccessDenied", 403), exceptions.Forbidden),
        (error("SlowDown", 503), exceptions.RemoteServiceUnavailable),
        (error("PreconditionFailed", 412), exceptions.BackendException),
    ],
)
def test_all_threads_tell_why_the_upload_could_not_begin(
    s3: FakeS3, cause: Exception, expected: type[Exception]
) -> None:
    """Whichever is the first to be heard."""
    s3.tell("create_multipart_upload", cause)
    upload = upload_to(s3)
    texts = []
    for number in (1, 2, 3):
        with pytest.raises(expected, match="Beginning the upload") as caught:
            put_part(upload, number)
        texts.append(str(caught.value))
    assert len(set(texts)) == 1
    assert s3.names() == ["create_multipart_upload"]


def test_nothing_is_looked_for_after_a_refused_beginning(s3: FakeS3) -> None:
    s3.tell("create_multipart_upload", error("AccessDenied", 403))
    upload = upload_to(s3)
    with pytest.raises(exceptions.Forbidden):
        put_part(upload)
    upload.abort()
    assert s3.names() == ["create_multipart_upload"]


# -- the removal of parts


def test_part_that_outlives_the_abort_is_removed(s3: FakeS3) -> None:
    """The service was still taking it in when it was asked to abort."""
    upload = upload_to(s3)
    put_part(upload)
    s3.tell("list_parts", {"Parts": [{"PartNumber": 1}]})
    upload.abort()
    assert s3.names()[2:] == ["abort_multipart_upload", "list_parts", "abort_multipart_upload"]
    assert s3.aborted() == ["ours", "ours"]


def test_abort_without_late_parts_is_one_request(s3: FakeS3) -> None:
    upload = upload_to(s3)
    put_part(upload)
    upload.abort()
    assert s3.aborted() == ["ours"]


# -- the object


def test_object_that_comes_late_is_removed_after_the_parts(s3: FakeS3) -> None:
    """Aborting first: what is aborted is not joined any more."""
    upload = upload_to(s3)
    put_part(upload)
    s3.tell("complete_multipart_upload", timeout())
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        upload.complete(4)
    mark = s3.calls[0][1]["Metadata"]
    s3.tell("head_object", error("404", 404), {"Metadata": mark, "VersionId": "7"})
    upload.abort()
    names = s3.names()
    assert names.index("abort_multipart_upload") < names.index("delete_object")
    assert s3.calls[-1] == (
        "delete_object",
        {"Bucket": "bucket", "Key": KEY, "VersionId": "7"},
    )


def test_late_object_of_somebody_else_stays(s3: FakeS3) -> None:
    upload = upload_to(s3)
    s3.tell("put_object", timeout())
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        upload.put_whole(b"data", None)
    s3.tell("head_object", {"Metadata": {}})
    upload.abort()
    assert "delete_object" not in s3.names()


def test_refusal_of_a_later_try_says_nothing_of_the_first(s3: FakeS3) -> None:
    upload = upload_to(s3, patience=30)
    s3.tell("put_object", timeout(), error("AccessDenied", 403))
    with pytest.raises(exceptions.Forbidden):
        upload.put_whole(b"data", None)
    before = len(s3.calls)
    upload.abort()
    assert s3.names()[before:] == ["head_object"] * 4


def test_join_that_cannot_be_repeated_after_a_conflict(
    s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some services have thrown the parts away by then; others are at it."""
    monkeypatch.setattr(upload_module, "_PER_PART", 0)
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 1)
    upload = upload_to(s3, patience=0.1)
    put_part(upload)
    s3.tell(
        "complete_multipart_upload",
        error("ConditionalRequestConflict", 409),
        error("NoSuchUpload", 404),
    )
    with pytest.raises(
        exceptions.RemoteServiceUnavailable, match=r"NoSuchUpload.*may still be joining"
    ):
        upload.complete(4)
    assert s3.names().count("complete_multipart_upload") == 2


def test_join_of_parts_that_were_never_there(s3: FakeS3) -> None:
    """Without a request before it that may be under way the answer is believed."""
    upload = upload_to(s3, patience=30)
    put_part(upload)
    s3.tell("complete_multipart_upload", error("NoSuchUpload", 404))
    with pytest.raises(exceptions.BackendException, match="404 NoSuchUpload") as caught:
        upload.complete(4)
    assert not isinstance(caught.value, exceptions.RemoteServiceUnavailable)
    assert s3.names().count("complete_multipart_upload") == 1


# -- the sweep


def unknown(upload: Upload) -> None:
    """Let the answer to the beginning be lost."""
    with pytest.raises(exceptions.RemoteServiceUnavailable):
        put_part(upload)


def listed(*ids: str, **more: Any) -> dict[str, Any]:
    return {"Uploads": [{"Key": KEY, "UploadId": name, "Initiated": NOON} for name in ids], **more}


@pytest.mark.parametrize("pages", [1, 2, 5])
def test_listing_that_repeats_itself_ends(s3: FakeS3, pages: int) -> None:
    """What it has named is removed, and the caller hears that there may be more."""
    upload = upload_to(s3)
    s3.tell("create_multipart_upload", timeout())
    unknown(upload)
    markers = [{"NextKeyMarker": KEY, "NextUploadIdMarker": f"{page}"} for page in range(pages)]
    for marker in markers * 100:
        s3.tell("list_multipart_uploads", listed("stray", IsTruncated=True, **marker))
    with pytest.raises(exceptions.BackendException, match="perhaps an unfinished multipart") as e:
        upload.abort()
    assert KEY in str(e.value)
    assert set(s3.aborted()) == {"stray"}
    assert s3.names().count("list_multipart_uploads") == pages + 1


def test_repeated_listing_is_logged(s3: FakeS3, caplog: pytest.LogCaptureFixture) -> None:
    upload = upload_to(s3)
    s3.tell("create_multipart_upload", timeout())
    unknown(upload)
    page = listed(IsTruncated=True, NextKeyMarker=KEY)
    s3.tell("list_multipart_uploads", page, page, {})
    with pytest.raises(exceptions.BackendException, match="perhaps an unfinished multipart"):
        upload.abort()
    assert "the service repeats itself" in caplog.text


def test_all_pages_of_a_listing_are_swept(s3: FakeS3) -> None:
    upload = upload_to(s3)
    s3.tell("create_multipart_upload", timeout())
    unknown(upload)
    other = {"Uploads": [{"Key": f"{KEY}-2", "UploadId": "other"}]}
    s3.tell(
        "list_multipart_uploads",
        listed("a", "b", IsTruncated=True, NextKeyMarker=KEY, NextUploadIdMarker="b"),
        {**other, "IsTruncated": True, "NextKeyMarker": f"{KEY}-2"},
        listed("c"),
    )
    upload.abort()
    assert s3.aborted() == ["a", "b", "c"]


def test_uploads_begun_at_another_time_are_left_alone(
    s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process uploads an image of the same id, and has not sent a part yet."""
    now = [100.0]
    monkeypatch.setattr(
        upload_module, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=None)
    )
    # At noon of the service it was 100 here; the upload begins a minute later and takes a minute.
    upload = upload_to(s3)
    upload._clock = ServiceClock(NOON, 99.5, 100.0)
    now[0] += 60

    def lose(**_arguments: Any) -> Any:
        now[0] += 60
        raise timeout()

    monkeypatch.setattr(s3, "create_multipart_upload", lose, raising=False)
    unknown(upload)
    now[0] += 600
    ids = {"before": 57, "first": 59, "ours": 90, "last": 122, "after": 124}
    uploads = [
        {"Key": KEY, "UploadId": name, "Initiated": NOON + datetime.timedelta(seconds=seconds)}
        for name, seconds in ids.items()
    ]
    s3.tell("list_multipart_uploads", {"Uploads": uploads})
    upload.abort()
    assert s3.aborted() == ["first", "ours", "last"]


def test_uploads_with_parts_are_left_alone(s3: FakeS3) -> None:
    upload = upload_to(s3)
    s3.tell("create_multipart_upload", timeout())
    unknown(upload)
    s3.tell("list_multipart_uploads", listed("busy", "idle"))
    s3.tell("list_parts", {"Parts": [{"PartNumber": 1}]})
    upload.abort()
    assert s3.aborted() == ["idle"]


# -- the time of the service


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_time_of_an_answer(zone: str) -> None:
    clock = clock_of(f"Thu, 01 Jan 2026 12:00:00 {zone}", 10.0, 11.0)
    assert clock is not None
    second = datetime.timedelta(seconds=1)
    assert clock.span(11.0, 20.0) == (NOON - second, NOON + 12 * second)


@pytest.mark.parametrize("date", ["", "noon"])
def test_answer_without_a_time(date: str) -> None:
    assert clock_of(date, 1.0, 2.0) is None


def test_time_is_that_of_the_answer_to_the_first_look(s3: FakeS3) -> None:
    s3.tell("head_object", error("404", 404, date="Thu, 01 Jan 2026 12:00:00 GMT"))
    upload = upload_to(s3)
    upload.check_free()
    assert upload._clock is not None
    earliest, latest = upload._clock.span(upload._clock._answered, upload._clock._answered)
    assert earliest < NOON < latest
