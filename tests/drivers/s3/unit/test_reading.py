# SPDX-License-Identifier: Apache-2.0
"""Downloads from services, and through proxies and caches, that answer in ways of their own."""

from __future__ import annotations

import contextlib
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from glance_store.transfer.retry import Patience
from tests.drivers.s3.loopback import BUCKET, close, store_at
from tests.drivers.s3.objects import Call, Objects, refusal
from tests.drivers.s3.service import PATIENT
from tests.faults.proxy import FaultProxy
from tests.services.http_server import Answer, File, Request, WebServer
from tests.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.drivers.s3.conftest import Images

pytest.importorskip("boto3")

MIB = 1024 * 1024
# More than two ranges.
SIZE = 20 * MIB + 3
DATA = image(SIZE)


def changing(operation: str, change: Callable[[Call], Answer | None]) -> Callable[[Call], Any]:
    """Return a quirk for one operation."""
    return lambda call: change(call) if call.operation == operation else None


def in_order(operation: str, *answers: Answer) -> Callable[[Call], Answer | None]:
    """Return a quirk that gives each answer once; the service goes on."""
    left = list(answers)
    return changing(operation, lambda _call: left.pop(0) if left else None)


# -- the range that was asked for


def other_range(offset: int, text: str) -> Callable[[Call], Answer]:
    """Return 206 with bytes that begin elsewhere, and with what the answer says of them."""

    def answer(call: Call) -> Answer:
        first, last = map(int, call.headers["range"][6:].split("-"))
        body = DATA[offset : offset + last - first + 1]
        headers = {"ETag": '"1"', "Content-Range": text} if text else {"ETag": '"1"'}
        return Answer(206, body, headers)

    return answer


OTHERS = pytest.mark.parametrize(
    ("offset", "text"),
    [
        (0, f"bytes 0-99/{SIZE}"),
        (999, f"bytes 999-1098/{SIZE}"),
        (1001, f"bytes 1001-1100/{SIZE}"),
        # Of an object with another size, or more than was asked for.
        (1000, "bytes 1000-1099/5000"),
        (1000, f"bytes 1000-1100/{SIZE}"),
        (0, ""),
        (0, "bytes"),
        (0, "items 1000-1099/5000"),
    ],
)


@OTHERS
def test_another_range_is_no_image_data(
    objects: Objects, at: Callable[..., Images], offset: int, text: str
) -> None:
    objects.put("image", DATA)
    objects.quirk = changing("GetObject", other_range(offset, text))
    received: list[bytes] = []
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="other bytes"):
        received.extend(at().get(objects.uri("image"), offset=1000, chunk_size=100))
    assert received == []


@OTHERS
@pytest.mark.usefixtures("brisk")
def test_another_range_is_asked_for_again(
    objects: Objects, at: Callable[..., Images], offset: int, text: str
) -> None:
    """One cache has it wrong, the next one may have it right."""
    objects.put("image", DATA)
    wrong = [other_range(offset, text)]
    objects.quirk = changing("GetObject", lambda call: wrong.pop()(call) if wrong else None)
    images = at(s3_store_retry_timeout=PATIENT)
    check_bytes(images.read(objects.uri("image"), offset=1000, chunk_size=100), DATA[1000:1100])
    assert len(objects.asked("GetObject")) == 2


def whole(objects: Objects) -> Callable[[Call], Answer | None]:
    """Return the quirk of a service that knows no ranges."""

    def answer(call: Call) -> Answer:
        found = objects.objects[call.key]
        return Answer(200, found.content, {"ETag": found.etag})

    return changing("GetObject", answer)


@pytest.mark.parametrize("bounds", [{}, {"offset": 1000, "chunk_size": 9 * MIB}])
def test_service_without_ranges(
    objects: Objects, at: Callable[..., Images], bounds: dict[str, int]
) -> None:
    """All of an object for each range of it: its answer is kept, and each byte comes once."""
    objects.put("image", DATA)
    objects.quirk = whole(objects)
    start = bounds.get("offset", 0)
    wanted = DATA[start : start + bounds.get("chunk_size", SIZE)]
    check_bytes(at().read(objects.uri("image"), **bounds), wanted)
    assert len(objects.asked("GetObject")) == 1


def test_slow_service_without_ranges(objects: Objects, at: Callable[..., Images]) -> None:
    """From another one ranges would be fetched side by side; here each would be all of it."""
    objects.put("image", DATA)
    objects.quirk = whole(objects)
    host, port = objects.server.server_address[:2]
    with FaultProxy(str(host), port, http=True) as proxy:
        proxy.inject(bandwidth=20 * MIB)
        images = at(s3_store_host=f"http://{proxy.address}")
        images.store.READ_CHUNKSIZE = MIB // 2
        check_bytes(images.read(objects.uri("image")), DATA)
        assert proxy.bytes_down < 1.5 * SIZE


def test_reader_of_a_service_without_ranges(objects: Objects, at: Callable[..., Images]) -> None:
    """Going on is cheap, going back is a new request."""
    objects.put("image", DATA)
    objects.quirk = whole(objects)
    images = at()
    reader = images.store.open_reader(images.at(objects.uri("image")))
    with contextlib.closing(reader):
        for offset, length in ((5, 10), (15, 10), (5 * MIB, MIB), (9 * MIB, 3)):
            assert reader.read_at(offset, length) == DATA[offset : offset + length]
        assert len(objects.asked("GetObject")) == 1
        assert reader.read_at(0, 7) == DATA[:7]
        assert len(objects.asked("GetObject")) == 2
        assert reader.read_at(SIZE - 4, 100) == DATA[-4:]
        assert reader.concurrency == 1
    assert len(objects.asked("GetObject")) == 2


def test_answer_with_all_of_another_object(objects: Objects, at: Callable[..., Images]) -> None:
    objects.put("image", DATA)
    objects.quirk = changing("GetObject", lambda _call: Answer(200, DATA[:-1]))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="other bytes"):
        at().read(objects.uri("image"))


@pytest.mark.parametrize("total", [True, False])
def test_range_that_is_shorter_than_asked(
    objects: Objects, at: Callable[..., Images], total: bool
) -> None:
    """The rest of it is asked for, without a failure that would cost patience."""
    found = objects.put("image", DATA)

    def shorter(call: Call) -> Answer:
        first, last = map(int, call.headers["range"][6:].split("-"))
        last = min(last, first + 3 * MIB)
        file = File(DATA, etag=found.etag, total=total)
        return file(Request("GET", "", {"range": f"bytes={first}-{last}"}))

    objects.quirk = changing("GetObject", shorter)
    images = at(s3_store_retry_timeout=0)
    check_bytes(images.read(objects.uri("image")), DATA)
    check_bytes(
        images.read(objects.uri("image"), offset=7, chunk_size=5 * MIB), DATA[7:][: 5 * MIB]
    )


# -- tags and conditions


def test_weak_tag(objects: Objects, at: Callable[..., Images]) -> None:
    """A proxy has made it weak, and the service compares the strong one."""
    found = objects.put("image", DATA)

    def weaken(call: Call) -> Answer | None:
        if call.operation not in ("HeadObject", "GetObject"):
            return None
        answer = objects.usual(call)
        if "ETag" in answer.headers:
            answer.headers["ETag"] = f"W/{answer.headers['ETag']}"
        return answer

    objects.quirk = weaken
    check_bytes(at().read(objects.uri("image")), DATA)
    assert {call.headers.get("if-match") for call in objects.asked("GetObject")} == {found.etag}


CONDITIONS = pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "InvalidArgument"),
        (400, ""),
        (405, "MethodNotAllowed"),
        (412, "PreconditionFailed"),
        (501, "NotImplemented"),
    ],
)


def unconditional(objects: Objects, status: int, code: str) -> Callable[[Call], Answer | None]:
    """Return the quirk of a service that answers GET with a condition like that."""

    def answer(call: Call) -> Answer | None:
        return refusal(status, code) if "if-match" in call.headers else None

    return changing("GetObject", answer)


@CONDITIONS
def test_service_without_the_condition(
    objects: Objects, at: Callable[..., Images], status: int, code: str
) -> None:
    """The object is read without it; of one download only one request is refused."""
    objects.put("image", DATA)
    objects.quirk = unconditional(objects, status, code)
    check_bytes(at(s3_store_retry_timeout=0).read(objects.uri("image")), DATA)
    conditions = ["if-match" in call.headers for call in objects.asked("GetObject")]
    assert conditions[:2] == [True, False]
    assert True not in conditions[2:]
    assert len(conditions) > 2


@CONDITIONS
def test_replaced_object_without_the_condition(
    objects: Objects, at: Callable[..., Images], status: int, code: str
) -> None:
    """The tag of the answer tells, also of one that comes later."""
    objects.put("image", DATA)
    objects.quirk = unconditional(objects, status, code)
    images = at(s3_store_retry_timeout=0, s3_store_read_concurrency=1)
    chunks = images.get(objects.uri("image"))
    objects.put("image", image(SIZE, seed=1))
    received: list[bytes] = []
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="was replaced"):
        received.extend(chunks)
    assert received == []

    objects.put("image", DATA)
    chunks = images.get(objects.uri("image"))
    received.append(next(chunks))
    objects.put("image", image(SIZE, seed=1))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="was replaced"):
        received.extend(chunks)
    assert DATA.startswith(b"".join(received))


def test_versions_are_not_named(objects: Objects, at: Callable[..., Images]) -> None:
    """The right to read a version is another one (s3:GetObjectVersion), which few keys have."""
    objects.put("image", DATA, {"x-amz-version-id": "v1"})

    def forbid(call: Call) -> Answer | None:
        return refusal(403, "AccessDenied") if "versionId" in call.query else None

    objects.quirk = forbid
    images = at()
    check_bytes(images.read(objects.uri("image")), DATA)
    assert images.size(objects.uri("image")) == SIZE
    images.delete(objects.uri("image"))
    assert objects.objects == {}


# -- HEAD


def test_head_without_a_length(objects: Objects, at: Callable[..., Images]) -> None:
    """An object of unknown size is not one without a byte: another answer may tell its size."""
    objects.put("image", DATA)
    bare = Answer(200, b"", {"ETag": '"1"'}, framing="close")
    objects.quirk = changing("HeadObject", lambda _call: bare)
    images = at()
    assert images.size(objects.uri("image")) == SIZE
    check_bytes(images.read(objects.uri("image")), DATA)
    objects.quirk = lambda call: bare if call.key else None
    for use in (images.read, images.size):
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="how large"):
            use(objects.uri("image"))


def test_head_without_a_reason(objects: Objects, at: Callable[..., Images]) -> None:
    objects.quirk = lambda _call: Answer(400)
    images = at(s3_store_retry_timeout=PATIENT)
    uses: list[Callable[[], Any]] = [
        lambda: images.read(objects.uri("image")),
        lambda: images.add("image", b"data"),
        lambda: images.delete(objects.uri("image")),
    ]
    for number, use in enumerate(uses, 1):
        with pytest.raises(exceptions.BackendException, match="s3_store_region_name"):
            use()
        # It does not pass, though the client library has asked where the bucket is.
        assert len(objects.asked("HeadObject")) == number


# -- what passes


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("status", [520, 522, 524, 530, 425, 503])
@pytest.mark.parametrize("operation", ["HeadObject", "GetObject", "DeleteObject"])
def test_trouble_of_a_proxy_passes(
    objects: Objects, at: Callable[..., Images], status: int, operation: str
) -> None:
    objects.put("image", DATA)
    page = Answer(status, b"error code: 520")
    objects.quirk = in_order(operation, page, page, page)
    images = at(s3_store_retry_timeout=PATIENT)
    check_bytes(images.read(objects.uri("image")), DATA)
    images.delete(objects.uri("image"))
    assert objects.objects == {}
    assert len(objects.asked(operation)) > 3


def test_service_says_when_it_wants_to_be_asked_again(
    objects: Objects, at: Callable[..., Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(Patience, "wait", lambda _self, seconds: pauses.append(seconds))
    objects.put("image", b"data")
    busy = refusal(429, "SlowDown", Retry_After="7")
    objects.quirk = in_order("GetObject", busy, busy)
    images = at(s3_store_retry_timeout=PATIENT)
    assert images.read(objects.uri("image")) == b"data"
    assert pauses == [7, 7]
    # Longer than anybody here waits: the next try would be too early.
    objects.quirk = in_order("GetObject", refusal(503, "SlowDown", Retry_After="3600"))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="SlowDown"):
        images.read(objects.uri("image"))
    assert pauses == [7, 7]


# -- giving up


@pytest.fixture(params=["http", "https"])
def silent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[WebServer, Images]]:
    """A server that goes silent in the middle of each range, and a store that waits for it."""
    context, options = None, {}
    if request.param == "https":
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        options = {"s3_store_cacert": str(tmp_path / "authority.pem")}
    file = File(DATA)

    def answer(asked: Request) -> Answer:
        whole = file(asked)
        if asked.method == "GET":
            return Answer(whole.status, whole.body, _with_length(whole), cut=MIB, ending="silence")
        return whole

    with WebServer(context) as web:
        web.serve(f"/{BUCKET}/image", answer)
        images = store_at(
            web.url(""), s3_store_retry_timeout=3600, s3_store_read_timeout=3600, **options
        )
        yield web, images
        close(images)


def _with_length(answer: Answer) -> dict[str, str]:
    return {**answer.headers, "Content-Length": str(len(answer.body))}


def test_download_from_a_silent_server_is_given_up(silent: tuple[WebServer, Images]) -> None:
    """By another thread, while one waits for the next byte: with an hour of patience, at once."""
    web, images = silent
    chunks = images.get(f"s3://127.0.0.1:{web.port}/{BUCKET}/image")
    received: list[bytes] = []

    def take() -> None:
        with contextlib.suppress(Exception):
            received.extend(chunks)

    reading = threading.Thread(target=take, daemon=True)
    reading.start()
    until(lambda: [one for one in web.requests if one.method == "GET"], "the download has begun")
    closing = threading.Thread(target=chunks.close, daemon=True)
    closing.start()
    # The server keeps its silence as long as the test runs.
    closing.join(PATIENCE)
    reading.join(PATIENCE)
    assert not closing.is_alive()
    assert not reading.is_alive()
    assert DATA.startswith(b"".join(received))


# -- headers


def test_requester_pays(objects: Objects, at: Callable[..., Images]) -> None:
    images = at(s3_store_request_payer="requester", s3_store_large_object_size=1)
    for name, data in (("small", b"data"), ("large", image(MIB))):
        uri = images.add(name, data)
        check_bytes(images.read(uri), data)
        images.delete(uri)
    assert {call.operation for call in objects.calls} >= {"PutObject", "UploadPart", "GetObject"}
    assert {call.headers.get("x-amz-request-payer") for call in objects.calls} == {"requester"}


def test_owner_pays_unless_configured(objects: Objects, at: Callable[..., Images]) -> None:
    images = at()
    images.delete(images.add("image", b"data"))
    assert {call.headers.get("x-amz-request-payer") for call in objects.calls} == {None}


@pytest.mark.usefixtures("brisk")
def test_page_of_a_proxy_is_no_image(objects: Objects, at: Callable[..., Images]) -> None:
    """Everything is answered by the page where one logs in: nothing is read or removed."""
    objects.put("image", DATA)
    page = Answer(200, b"<html>please log in</html>", {"Content-Type": "text/html; charset=utf-8"})
    objects.quirk = lambda _call: page
    images, uri = at(), objects.uri("image")
    calls = [images.read, images.size, images.delete, lambda _uri: images.add("new", DATA)]
    for call in calls:
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="web page"):
            call(uri)


@pytest.mark.parametrize(
    "media", ["text/html", "text/plain; charset=utf-8", "application/json", "application/xhtml+xml"]
)
def test_404_of_a_proxy_is_not_that_of_an_image(
    objects: Objects, at: Callable[..., Images], media: str
) -> None:
    """Taken for NotFound, it lets the image service forget an image that is still there."""
    objects.put("image", DATA)
    objects.quirk = lambda _call: Answer(404, b"<html>no backend</html>", {"Content-Type": media})
    images, uri = at(s3_store_retry_timeout=0), objects.uri("image")
    for call in (images.read, images.size, images.delete):
        with pytest.raises(exceptions.RemoteServiceUnavailable, match="look for a proxy"):
            call(uri)
    # Some services answer HEAD that way, and have a reason for it.
    page = Answer(404, headers={"Content-Type": media})
    objects.quirk = lambda call: page if call.operation == "HeadObject" else None
    images.delete(uri)
    assert not objects.objects
    for call in (images.read, images.size, images.delete):
        with pytest.raises(exceptions.NotFound):
            call(uri)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200),
        Answer(200, b"<Error><Code>SlowDown</Code></Error>", {"Content-Type": "application/xml"}),
        Answer(200, b'{"status": "ok"}', {"Content-Type": "application/json"}),
    ],
    ids=["nothing", "error", "json"],
)
def test_success_without_an_object(
    objects: Objects, at: Callable[..., Images], answer: Answer
) -> None:
    """Whoever has nothing to say to any request has no image."""
    objects.quirk = lambda _call: answer
    images = at(s3_store_retry_timeout=0)
    for call in (images.read, images.size):
        with pytest.raises(exceptions.BackendUnavailable):
            call(objects.uri("image"))


@pytest.mark.usefixtures("brisk")
def test_page_of_a_proxy_is_no_deletion(objects: Objects, at: Callable[..., Images]) -> None:
    objects.put("image", DATA)
    page = Answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})
    objects.quirk = lambda call: page if call.operation == "DeleteObject" else None
    images, uri = at(), objects.uri("image")
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="web page"):
        images.delete(uri)
    assert images.read(uri) == DATA
    # Swift calls even an empty response text/html.
    empty = Answer(204, headers={"Content-Type": "text/html"})
    objects.quirk = lambda call: empty if call.operation == "DeleteObject" else None
    images.delete(uri)


def test_image_that_is_a_web_page(objects: Objects, at: Callable[..., Images]) -> None:
    objects.put("image", DATA, {"Content-Type": "text/html"})
    assert at().size(objects.uri("image")) == len(DATA)
