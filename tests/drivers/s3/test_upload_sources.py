# SPDX-License-Identifier: Apache-2.0
"""Sources that deliver little at a time make neither more requests nor more work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from glance_store.testing.inputs import Source, check_bytes, image
from glance_store.transfer import source as source_module
from glance_store.transfer.source import BlockSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.drivers.s3.conftest import Images
    from tests.faults.proxy import FaultProxy

pytestmark = pytest.mark.services

MIB = 1024 * 1024
PART = 5 * MIB


FILL = BlockSource._fill


class CopyCounter:
    """Counts the bytes that are put together to blocks."""

    def __init__(self) -> None:
        self.copied = 0
        counter = self

        class Counting(bytearray):
            def __init__(self, data: Any = b"") -> None:
                super().__init__(data)
                counter.copied += len(self)

            def __iadd__(self, more: Any) -> Counting:  # noqa: PYI034 - typing.Self is too new
                counter.copied += len(more)
                return super().__iadd__(more)

            def __add__(self, more: Any) -> bytearray:
                counter.copied += len(self) + len(more)
                return super().__add__(more)

        self.kind = Counting

    def fill(self, source: BlockSource, buffer: Any, length: int) -> memoryview:
        """Count what is put together in a buffer."""
        block = FILL(source, buffer, length)
        self.copied += len(block)
        return block


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> CopyCounter:
    """Count from now on."""
    counter = CopyCounter()
    monkeypatch.setattr(source_module, "bytearray", counter.kind, raising=False)

    def fill(source: BlockSource, buffer: Any, length: int) -> memoryview:
        return counter.fill(source, buffer, length)

    monkeypatch.setattr(BlockSource, "_fill", fill)
    return counter


def portions(data: bytes, portion: int) -> Iterator[bytes]:
    for offset in range(0, len(data), portion):
        yield data[offset : offset + portion]


def kinds(proxy: FaultProxy) -> list[str]:
    """The methods of the requests, in an order that does not depend on the threads."""
    return sorted(request.method for request in proxy.requests)


@pytest.mark.parametrize("portion", [64, 1000, 1024])
@pytest.mark.parametrize("known", [True, False])
def test_r201_small_portions_make_no_more_requests_and_no_more_work(
    images: Images, proxy: FaultProxy, copies: CopyCounter, portion: int, known: bool
) -> None:
    data = image(2 * PART + 5)
    size = len(data) if known else 0
    # The first upload of a store looks for the bucket as well.
    images.delete(images.add("parts", b"data"))
    proxy.clear()
    uri = images.add("parts", Source(data), size)
    usual = kinds(proxy)
    assert usual.count("PUT") == 3
    images.delete(uri)
    proxy.clear()
    copies.copied = 0
    reads: list[int] = []
    images.add("parts", Source(data, portion=portion, before_read=reads.append), size)
    assert kinds(proxy) == usual
    # One more for the end of the image, and one for that of each part.
    assert len(reads) <= -(-len(data) // portion) + 3 + 1
    assert copies.copied <= len(data)
    check_bytes(images.read(uri), data)


@pytest.mark.parametrize("make_source", [Source, portions], ids=["read", "iterator"])
@pytest.mark.parametrize("known", [True, False])
def test_r214_image_in_one_request_is_put_together_once(
    images: Images,
    proxy: FaultProxy,
    copies: CopyCounter,
    make_source: Callable[[bytes, int], Any],
    known: bool,
) -> None:
    data = image(PART - 1)
    uri = images.add("small", make_source(data, 1024), len(data) if known else 0)
    assert [request.method for request in proxy.requests].count("PUT") == 1
    assert copies.copied == len(data)
    check_bytes(images.read(uri), data)


@pytest.mark.parametrize(("size", "times"), [(MIB, 0), (PART - 1, 1)], ids=["small", "large"])
def test_r214_image_that_comes_at_once_is_copied_into_its_buffer_at_most(
    images: Images, copies: CopyCounter, size: int, times: int
) -> None:
    data = image(size)
    uri = images.add("small", Source(data), len(data))
    assert copies.copied == times * len(data)
    check_bytes(images.read(uri), data)
