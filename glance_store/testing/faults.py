# SPDX-License-Identifier: Apache-2.0
"""A network that fails: each request of an operation fails, once or permanently.

For drivers that use HTTP. The test class provides the proxy that fails requests; see `Kit.proxy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import check_bytes, image
from glance_store.testing.kit import RANGES, WRITE, Kit, needs, touches

STATUSES = (500, 503)
# If the backend fails, a driver may raise any exception of the library, but no other.
CLEAN = (exceptions.GlanceStoreException, exceptions.BackendException)


class Proxy(Protocol):
    """A proxy between a driver and its server."""

    def each_request(self, operation: Callable[[], object]) -> Iterator[int]:
        """Run an operation without failures, then yield the number of each of its requests."""
        ...

    def fail_request(self, number: int, status: int, *, times: int | None) -> None:
        """Answer a request with an error.

        :param number: number of the request, counted from 1 from now on
        :param status: HTTP status of the response
        :param times: how often the request and its retries fail; None for always
        """
        ...

    def clear(self) -> None:
        """Let all requests pass again, and restart counting at 1."""
        ...


@touches("layout", "wire")
class Faults(Kit):
    """When any request of an operation fails, the driver recovers or fails cleanly."""

    def _proxied(self) -> Any:
        if self.proxy is None:
            pytest.skip(f"{type(self).__name__} has no proxy between driver and server")
        return self.proxy

    @pytest.mark.parametrize("status", STATUSES)
    @pytest.mark.parametrize("times", [1, None], ids=["once", "for-good"])
    def test_each_request_of_a_download_fails(self, status: int, times: int | None) -> None:
        """A download delivers the right bytes, or raises; it never ends early."""
        proxy = self._proxied()
        data = image(3 * self.block_size + 5)
        uri = self.place(data)
        for number in proxy.each_request(lambda: self.read(uri)):
            proxy.fail_request(number, status, times=times)
            self._right_or_clean(lambda: self.read(uri), data)
            proxy.clear()
            check_bytes(self.read(uri), data)

    @needs(RANGES)
    @pytest.mark.parametrize("times", [1, None], ids=["once", "for-good"])
    def test_each_request_of_a_range_fails(self, times: int | None) -> None:
        """The download of a range delivers the right bytes, or raises."""
        proxy = self._proxied()
        data = image(3 * self.block_size + 5)
        uri = self.place(data)
        first, length = self.block_size // 2, 2 * self.block_size

        def read() -> bytes:
            return self.read(uri, offset=first, chunk_size=length)

        for number in proxy.each_request(read):
            proxy.fail_request(number, 503, times=times)
            self._right_or_clean(read, data[first : first + length])

    def test_each_request_for_a_size_fails(self) -> None:
        """`get_size` returns the right size, or raises."""
        proxy = self._proxied()
        data = image(self.block_size + 5)
        uri = self.place(data)
        for number in proxy.each_request(lambda: self.size(uri)):
            for times in (1, None):
                proxy.clear()
                proxy.fail_request(number, 500, times=times)
                try:
                    assert self.size(uri) == len(data)
                except CLEAN:
                    continue

    @needs(WRITE)
    @pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
    @pytest.mark.parametrize("times", [1, None], ids=["once", "for-good"])
    def test_each_request_of_an_upload_fails(self, known: bool, times: int | None) -> None:
        """An upload succeeds with the right bytes, or leaves nothing."""
        proxy = self._proxied()
        data = image(3 * self.block_size + 5)
        size = len(data) if known else 0
        before: list[Any] = []
        counted: list[str] = []

        def upload() -> str:
            return self.add(self.new_id(), data, size)

        for number in proxy.each_request(lambda: counted.append(upload())):
            if counted:
                # This image was stored only to count requests; deleting it must not count.
                self.delete(counted.pop())
                before = sorted(self.listing())
                proxy.clear()
            proxy.fail_request(number, 503, times=times)
            try:
                uri = upload()
            except CLEAN:
                proxy.clear()
            else:
                proxy.clear()
                check_bytes(self.read(uri), data)
                self.delete(uri)
            assert sorted(self.listing()) == before, (
                f"failing request {number} of an upload leaves something behind"
            )

    @needs(WRITE)
    def test_each_request_of_a_deletion_fails(self) -> None:
        """An image whose deletion failed is complete, and can be deleted later."""
        proxy = self._proxied()
        data = image(2 * self.block_size + 5)
        counted = self.place(data)
        for number in proxy.each_request(lambda: self.delete(counted)):
            before = sorted(self.listing())
            uri = self.place(data)
            proxy.clear()
            proxy.fail_request(number, 503, times=1)
            try:
                self.delete(uri)
            except CLEAN:
                proxy.clear()
                check_bytes(self.read(uri), data)
                self.delete(uri)
            assert sorted(self.listing()) == before

    def _right_or_clean(self, read: Callable[[], bytes], expected: bytes) -> None:
        try:
            data = read()
        except CLEAN:
            return
        check_bytes(data, expected)
