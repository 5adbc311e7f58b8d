# SPDX-License-Identifier: Apache-2.0
"""A bucket that is in another region, and a service that sends elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.loopback import BUCKET, Recorder, close, store_at
from tests.services.http_server import Answer, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOME = "eu-test-1"
DATA = image(1000)
URI = f"s3://127.0.0.1/{BUCKET}/image"


def region_of(request: Request) -> str:
    """Return the region that a request is signed for."""
    found = re.search(r"Credential=[^/]+/\d{8}/([^/]+)/s3/", request.headers["authorization"])
    assert found is not None
    return found[1]


def refusal(status: int, code: str, more: str = "", **headers: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>not here</Message>{more}</Error>".encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, {"Content-Type": "application/xml", **named})


class Elsewhere:
    """A service that has the bucket in one region, and refuses requests for any other one.

    :ivar refusal: the answer to those
    :ivar redirects: the methods that are refused
    """

    def __init__(self) -> None:
        self.refusal = refusal(301, "PermanentRedirect", x_amz_bucket_region=HOME)
        self.redirects = {"HEAD", "GET", "PUT", "POST", "DELETE"}
        self.stored: dict[str, bytes] = {"image": DATA}
        self.server = Recorder(self._answer)

    def _answer(self, request: Request, body: bytes) -> Answer:
        if request.method in self.redirects and region_of(request) != HOME:
            return self.refusal
        key = request.target.partition("?")[0].partition(f"/{BUCKET}/")[2]
        if request.method == "PUT":
            self.stored[key] = body
        if not key:
            return Answer(200)
        if key not in self.stored:
            return Answer(404, headers={"Content-Length": "0"})
        data = self.stored[key]
        headers = {"ETag": '"1"', "Content-Length": str(len(data))}
        if request.method == "PUT":
            headers["Content-Length"] = "0"
            return Answer(200, b"", headers)
        if request.method == "DELETE":
            return Answer(204)
        if "range" in request.headers:
            headers["Content-Range"] = f"bytes 0-{len(data) - 1}/{len(data)}"
            return Answer(206, data, headers)
        return Answer(200, data, headers)

    def regions(self, method: str) -> list[str]:
        """Return for which regions requests have come."""
        return [region_of(one) for one in self.server.requests if one.method == method]


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    service = Elsewhere()
    with service.server:
        yield service


ANSWERS: list[Callable[[], Answer]] = [
    lambda: refusal(301, "PermanentRedirect", x_amz_bucket_region=HOME),
    lambda: refusal(307, "TemporaryRedirect", x_amz_bucket_region=HOME),
    lambda: refusal(
        400, "AuthorizationHeaderMalformed", f"<Region>{HOME}</Region>", x_amz_bucket_region=HOME
    ),
]
NAMES = ["permanent", "temporary", "malformed"]


@pytest.mark.parametrize("answer", ANSWERS, ids=NAMES)
def test_bucket_in_another_region(elsewhere: Elsewhere, answer: Callable[[], Answer]) -> None:
    """Requests are signed for the region that the service names, from then on at once."""
    elsewhere.refusal = answer()
    images = store_at(elsewhere.server.url, s3_store_region_name="us-east-1")
    check_bytes(images.read(URI), DATA)
    assert elsewhere.regions("HEAD") == ["us-east-1", HOME]
    assert elsewhere.regions("GET") == [HOME]
    images.delete(URI)
    assert elsewhere.regions("DELETE") == [HOME]
    close(images)


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("answer", ANSWERS, ids=NAMES)
def test_request_with_data_is_redirected(
    elsewhere: Elsewhere, answer: Callable[[], Answer], method: str
) -> None:
    """An upload is sent again from its first byte on."""
    elsewhere.refusal, elsewhere.redirects = answer(), {method}
    images = store_at(elsewhere.server.url, s3_store_region_name="us-east-1")
    check_bytes(images.read(images.add("new", DATA)), DATA)
    assert elsewhere.regions(method)[:2] == ["us-east-1", HOME]
    assert elsewhere.stored["new"] == DATA
    close(images)


@pytest.mark.parametrize("answer", ANSWERS, ids=NAMES)
def test_region_that_is_of_no_use(elsewhere: Elsewhere, answer: Callable[[], Answer]) -> None:
    """The error names it, and the options that say where the bucket is."""
    elsewhere.refusal = answer()
    images = store_at(elsewhere.server.url, s3_store_region_name="us-east-1")
    there = Answer(200, headers={"ETag": '"1"', "Content-Length": "1000"})
    elsewhere.server.answer = lambda request, _body: (
        there if request.method == "HEAD" else elsewhere.refusal
    )
    with pytest.raises(exceptions.BackendException, match=f"region {HOME}.*s3_store_region_name"):
        images.read(URI)
    assert elsewhere.regions("GET") == ["us-east-1", HOME]
    close(images)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_address_of_a_redirect_is_not_followed(elsewhere: Elsewhere, status: int) -> None:
    """All requests go to the host of the options, whatever a service says."""
    other = Elsewhere()
    with other.server:
        location = f"{other.server.url}/{BUCKET}/image"
        elsewhere.refusal = refusal(status, "TemporaryRedirect", Location=location)
        images = store_at(elsewhere.server.url, s3_store_region_name="us-east-1")
        with pytest.raises(exceptions.BackendException, match="s3_store_host"):
            images.read(URI)
        close(images)
    assert other.server.requests == []
    # The image is asked for, and the bucket where that is.
    assert len(elsewhere.server.requests) <= 2
