# SPDX-License-Identifier: Apache-2.0
"""Lists of what a bucket holds: all of it, or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store.inventory import COMPLETE, FOREIGN
from tests.drivers.s3.objects import Call, Objects, Unfinished, document, listing, refusal
from tests.drivers.s3.service import PATIENT, without_waiting
from tests.drivers.s3.unit.test_writing import PAGE, always
from tests.services.http_server import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.conftest import Images

pytest.importorskip("boto3")

MORE = "<IsTruncated>true</IsTruncated>"


def ids(images: Images) -> list[str]:
    return [found.image_id for found in images.store.images()]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_list_goes_on_after_trouble_that_passes(
    objects: Objects, at: Callable[..., Images], monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """Whichever page the trouble comes with: images that are not listed look lost."""
    without_waiting(monkeypatch)
    troubles = {broken: [Answer(0), refusal(503, "SlowDown")]}

    def quirk(call: Call) -> Answer | None:
        if call.operation != "ListObjectsV2":
            return None
        page = int(call.query.get("continuation-token", "0"))
        if troubles.get(page):
            return troubles[page].pop()
        following = f"{MORE}<NextContinuationToken>{page + 1}</NextContinuationToken>"
        return listing(f"{page}", **({"more": following} if page < 2 else {}))

    objects.quirk = quirk
    assert ids(at(s3_store_retry_timeout=PATIENT)) == ["0", "1", "2"]


def test_list_that_cannot_be_followed(objects: Objects, at: Callable[..., Images]) -> None:
    more = f"{MORE}<NextContinuationToken>1</NextContinuationToken>"
    objects.quirk = always("ListObjectsV2", listing("a", more=more))
    with pytest.raises(exceptions.BackendException, match="repeats itself"):
        ids(at())


@pytest.mark.parametrize("refused", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_service_that_knows_only_the_older_list(
    objects: Objects, at: Callable[..., Images], refused: bool, named: bool
) -> None:
    """It refuses the newer one, or takes it for the older one."""

    def quirk(call: Call) -> Answer:
        if refused and "list-type" in call.query:
            return refusal(501, "NotImplemented")
        left = [key for key in "abcde" if key > call.query.get("marker", "")]
        more = f"<IsTruncated>{'true' if len(left) > 2 else 'false'}</IsTruncated>"
        if named and len(left) > 2:
            more += f"<NextMarker>{left[1]}</NextMarker>"
        return listing(*left[:2], more=more)

    objects.quirk = quirk
    assert ids(at()) == list("abcde")


def test_list_of_the_older_kind_that_does_not_end(
    objects: Objects, at: Callable[..., Images]
) -> None:
    objects.quirk = always("ListObjectsV2", listing("a", more=MORE))
    with pytest.raises(exceptions.BackendException, match="repeats itself"):
        ids(at())


@pytest.mark.parametrize("operation", ["ListObjectsV2", "ListMultipartUploads", "ListParts"])
@pytest.mark.parametrize(
    "page",
    [
        Answer(200, PAGE, {"Content-Type": "text/html"}),
        Answer(200, b"<html><body/></html>", {"Content-Type": "application/xhtml+xml"}),
        Answer(200),
    ],
    ids=["html", "xhtml", "nothing"],
)
def test_page_in_the_place_of_a_list(
    objects: Objects, at: Callable[..., Images], operation: str, page: Answer
) -> None:
    """Otherwise all images would look lost, and an upload that goes on like a dead one."""
    objects.put("image", b"data")
    objects.uploads["1"] = Unfinished("image", {}, {1: b"data"})
    objects.quirk = always(operation, page)
    store = at(s3_store_retry_timeout=0).store
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="web page"):
        list(store.images() if operation == "ListObjectsV2" else store.leftovers(60))


@pytest.mark.parametrize("text", ["<KeyCount/>", "<Contents><Key>a</Key><Size>x</Size></Contents>"])
def test_numbers_in_a_list_that_are_none(
    objects: Objects, at: Callable[..., Images], text: str
) -> None:
    objects.quirk = always("ListObjectsV2", document("ListBucketResult", text))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="a number"):
        ids(at(s3_store_retry_timeout=0))


def test_objects_that_no_location_names(objects: Objects, at: Callable[..., Images]) -> None:
    """Their locations would name the objects of other buckets: they are not copied or removed."""
    for key in ("image", "folder/image", "folder/", "a?b", "a#b"):
        objects.put(key, b"data")
    found = {one.image_id: one for one in at().store.images()}
    assert len(found) == len(objects.objects)
    image = found.pop("image")
    assert (image.state, image.uri) == (COMPLETE, objects.uri("image"))
    assert {(one.state, one.uri) for one in found.values()} == {(FOREIGN, None)}


def test_size_that_is_not_listed(objects: Objects, at: Callable[..., Images]) -> None:
    objects.quirk = always(
        "ListObjectsV2", document("ListBucketResult", "<Contents><Key>a</Key></Contents>")
    )
    assert [found.size for found in at().store.images()] == [None]


@pytest.mark.parametrize("dated", [True, False])
def test_unfinished_upload_without_its_beginning(
    objects: Objects, at: Callable[..., Images], dated: bool
) -> None:
    """Its age shows in its parts, or not at all; then it stays."""
    upload = "<Upload><Key>a</Key><UploadId>1</UploadId></Upload>"
    came = "<LastModified>2020-01-01T00:00:00Z</LastModified>" if dated else ""
    objects.quirk = lambda call: {
        "ListMultipartUploads": document("R", upload),
        "ListParts": document("R", f"<Part><PartNumber>1</PartNumber>{came}</Part>"),
    }.get(call.operation)
    assert len(list(at().store.leftovers(60))) == dated
