# SPDX-License-Identifier: Apache-2.0
"""Copies that the service makes by itself: parts of another object, joined like any upload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.s3 import copies
from glance_store.testing.inputs import check_bytes, image
from tests.drivers.s3.service import BUCKET
from tests.faults.http import How

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.conftest import Images
    from tests.drivers.s3.service import Service
    from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.services

MIB = 1024 * 1024
PART = 5 * MIB
SIZE = 2 * PART + 5
CLEAN = (exceptions.GlanceStoreException, exceptions.BackendException)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_PART", PART)


def copy(images: Images, uri: str, source: Images | None = None, progress: Any = None) -> Any:
    source = source or images
    return images.store.copy_from(
        source.store, source.at(uri), "copy", progress or (lambda _length: None)
    )


def test_in_parts_to_another_bucket(
    images: Images, make: Callable[..., Images], service: Service, proxy: FaultProxy
) -> None:
    """No byte of it comes here, and the copy needs the image no more."""
    data = image(SIZE)
    uri = images.add("image", data)
    other = make(s3_store_bucket=f"{BUCKET}-other", s3_store_create_bucket_on_put=True)
    proxy.clear()
    steps: list[int] = []
    new_uri, size, _metadata = copy(other, uri, images, steps.append)
    assert [request.method for request in proxy.requests].count("GET") == 0
    assert size == sum(steps) == SIZE
    assert len(steps) == 3
    assert f"/{BUCKET}-other/copy" in new_uri
    images.delete(uri)
    check_bytes(other.read(new_uri), data)
    other.delete(new_uri)
    assert not service.client.list_multipart_uploads(Bucket=f"{BUCKET}-other").get("Uploads")
    service.client.delete_bucket(Bucket=f"{BUCKET}-other")


@pytest.mark.parametrize("steps", [1, 3])
def test_what_ends_it_leaves_nothing(images: Images, service: Service, steps: int) -> None:
    uri = images.add("image", image(SIZE))
    before = service.listing()
    counted = []

    def end(length: int) -> None:
        counted.append(length)
        if len(counted) == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(images, uri, progress=end)
    assert service.listing() == before


@pytest.mark.parametrize("times", [1, None], ids=["once", "for-good"])
def test_answer_of_each_request_is_lost(
    images: Images, service: Service, proxy: FaultProxy, times: int | None
) -> None:
    """Either there is a whole copy or none."""
    data = image(1000)
    uri = images.add("image", data)
    before = service.listing()

    def once() -> None:
        images.delete(copy(images, uri)[0])

    outcomes = set()
    for number in proxy.each_request(once):
        proxy.fail_request(number, how=How.RESET, after=0, times=times)
        try:
            made = copy(images, uri)
        except CLEAN:
            outcomes.add("failed")
        else:
            assert made is not None
            outcomes.add("copied")
            proxy.clear()
            check_bytes(images.read(made[0]), data)
            images.delete(made[0])
        proxy.clear()
        assert service.listing() == before, f"request {number} leaves something"
    assert "copied" in outcomes


def test_a_service_that_does_not_copy(images: Images, service: Service, proxy: FaultProxy) -> None:
    """The caller reads and writes then; nothing of the attempt is left."""
    uri = images.add("image", image(PART + 5))
    before = service.listing()
    proxy.clear()
    copied = copy(images, uri)
    images.delete(copied[0])
    parts = [one.number for one in proxy.requests if "partNumber" in one.target]
    for number in parts:
        proxy.clear()
        proxy.fail_request(number, 501, times=None)
        assert copy(images, uri) is None
        proxy.clear()
        assert service.listing() == before


def test_another_key(images: Images, make: Callable[..., Images], proxy: FaultProxy) -> None:
    """Nothing is asked: it might not be allowed to see the image."""
    uri = images.add("image", b"data")
    other = make(s3_store_access_key="other")
    proxy.clear()
    assert copy(other, uri, images) is None
    assert proxy.requests == []
