# SPDX-License-Identifier: Apache-2.0
"""The checksum of an object that is read as a whole is verified, if the operator wants it."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import logging
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.loopback import BUCKET, close, store_at
from tests.drivers.s3.service import PATIENT
from tests.services.http_server import Answer, File, Request, WebServer, cutting, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.drivers.s3.conftest import Images
    from tests.faults.proxy import FaultProxy

MIB = 1024 * 1024
# More than one range, so that a reader without a checksum asks more than once.
SIZE = 20 * MIB + 3
VERIFYING = {
    "s3_store_enable_data_integrity_protection": True,
    "s3_store_response_checksum_validation": "when_supported",
}


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode("ascii")


@dataclasses.dataclass
class Summed:
    """An object as a service sends it that has its checksum: with all of it, and where it is asked.

    :ivar content: the bytes that are sent
    :ivar sums: headers
    """

    content: bytes
    sums: dict[str, str]

    def __call__(self, request: Request) -> Answer:
        answer = File(self.content)(request)
        if request.headers.get("x-amz-checksum-mode") == "ENABLED" and answer.status == 200:
            answer.headers.update(self.sums)
        return answer


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def reading(web: WebServer) -> Iterator[Callable[..., tuple[Images, str]]]:
    """Configure a store for an object of the server."""
    with contextlib.ExitStack() as stack:

        def create(answerer: Any, **options: Any) -> tuple[Images, str]:
            web.serve(f"/{BUCKET}/image", answerer)
            images = store_at(web.url(""), **{**VERIFYING, **options})
            stack.callback(close, images)
            return images, f"s3://127.0.0.1:{web.port}/{BUCKET}/image"

        yield create


def gets(web: WebServer) -> list[str | None]:
    """Return the ranges that were asked for; None for the whole object."""
    return [one.headers.get("range") for one in web.requests if one.method == "GET"]


@pytest.mark.parametrize("size", [1, 1000, SIZE])
@pytest.mark.parametrize("algorithm", ["crc32", "sha1", "sha256"])
def test_right_checksum(
    web: WebServer, reading: Callable[..., tuple[Images, str]], size: int, algorithm: str
) -> None:
    """The image is read by one request without a range: only there a service sends a checksum."""
    data = image(size)
    value = crc32(data)
    if algorithm != "crc32":
        value = base64.b64encode(hashlib.new(algorithm, data).digest()).decode("ascii")
    images, uri = reading(Summed(data, {f"x-amz-checksum-{algorithm}": value}))
    check_bytes(images.read(uri), data)
    assert gets(web) == [None]


@pytest.mark.parametrize("size", [1, 1000, SIZE])
def test_wrong_checksum(reading: Callable[..., tuple[Images, str]], size: int) -> None:
    """It is an error of this library, and nobody gets to the end of the damaged image."""
    data = image(size)
    images, uri = reading(Summed(data, {"x-amz-checksum-crc32": crc32(data + b"x")}))
    received = []
    with pytest.raises(exceptions.BackendException, match="checksum") as caught:
        received.extend(images.get(uri))
    assert sum(map(len, received)) < size
    assert f"{BUCKET}/image" in str(caught.value)
    assert crc32(data + b"x") in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.usefixtures("brisk")
def test_a_damaged_image_is_not_asked_for_again(
    web: WebServer, reading: Callable[..., tuple[Images, str]]
) -> None:
    """Its first bytes are with the caller, it is of no use to go on."""
    images, uri = reading(
        Summed(image(1000), {"x-amz-checksum-crc32": crc32(b"other")}),
        s3_store_retry_timeout=PATIENT,
    )
    with pytest.raises(exceptions.BackendException, match="checksum"):
        images.read(uri)
    assert gets(web) == [None]


@pytest.mark.parametrize(
    "sums",
    [
        {},
        # Of an object in parts, computed from theirs.
        {"x-amz-checksum-crc32": "AAAAAA==-3"},
        {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-type": "COMPOSITE"},
        # The library cannot compute it.
        {"x-amz-checksum-xxhash3": "AAAAAAAAAAA="},
    ],
    ids=["none", "parts", "composite", "unknown"],
)
def test_checksum_that_cannot_be_verified(
    web: WebServer, reading: Callable[..., tuple[Images, str]], sums: dict[str, str]
) -> None:
    """Such an image is read as any other one."""
    data = image(SIZE)
    images, uri = reading(Summed(data, sums))
    check_bytes(images.read(uri), data)
    assert len(gets(web)) > 1
    assert None not in gets(web)


@pytest.mark.parametrize(
    "options",
    [
        {"s3_store_enable_data_integrity_protection": False},
        {"s3_store_response_checksum_validation": "when_required"},
    ],
)
def test_nothing_is_verified_unless_it_is_wanted(
    web: WebServer, reading: Callable[..., tuple[Images, str]], options: dict[str, Any]
) -> None:
    data = image(SIZE)
    images, uri = reading(Summed(data, {"x-amz-checksum-crc32": crc32(b"other")}), **options)
    check_bytes(images.read(uri), data)
    assert "ENABLED" not in web.seen("x-amz-checksum-mode")
    assert None not in gets(web)


def test_a_range_is_read_as_such(
    web: WebServer, reading: Callable[..., tuple[Images, str]]
) -> None:
    data = image(SIZE)
    images, uri = reading(Summed(data, {"x-amz-checksum-crc32": crc32(b"other")}))
    check_bytes(images.read(uri, offset=5, chunk_size=9 * MIB), data[5 : 5 + 9 * MIB])
    check_bytes(images.read(uri, offset=0, chunk_size=9 * MIB), data[: 9 * MIB])
    assert gets(web) == [f"bytes=5-{9 * MIB + 4}", f"bytes=0-{9 * MIB - 1}"]


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_what_breaks_off_goes_on_unverified(
    web: WebServer,
    reading: Callable[..., tuple[Images, str]],
    caplog: pytest.LogCaptureFixture,
    ending: str,
) -> None:
    """By ranges, which have no checksum; the log says so once."""
    caplog.set_level(logging.INFO, "glance_store")
    data = image(SIZE)
    whole = Summed(data, {"x-amz-checksum-crc32": crc32(data)})
    # HEAD, all of it, and twice the rest.
    broken = [cutting(whole, 5 * MIB + 1, ending), cutting(whole, MIB, ending)]
    images, uri = reading(in_turn(whole, *broken, whole))
    check_bytes(images.read(uri), data)
    first, second, third = gets(web)
    assert first is None
    assert second is not None
    assert third is not None
    assert caplog.text.count("is not verified") == 1


def test_what_breaks_off_at_once_begins_anew(
    web: WebServer, reading: Callable[..., tuple[Images, str]]
) -> None:
    """Then it is verified as well."""
    data = image(1000)
    whole = Summed(data, {"x-amz-checksum-crc32": crc32(b"other")})
    images, uri = reading(in_turn(whole, cutting(whole, 0), whole))
    with pytest.raises(exceptions.BackendException, match="checksum"):
        images.read(uri)
    assert gets(web) == [None, None]


@pytest.mark.services
def test_services_without_such_checksums(
    make: Callable[..., Images], proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """A service that sends none is read as always, and nothing is claimed to be verified."""
    caplog.set_level(logging.DEBUG, "glance_store")
    images = make(**VERIFYING)
    data = image(SIZE)
    uri = images.add("unsummed", data)
    proxy.clear()
    check_bytes(images.read(uri), data)
    assert len([one for one in proxy.requests if one.method == "GET"]) > 1
    assert "cannot be verified" in caplog.text
