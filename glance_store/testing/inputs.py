# SPDX-License-Identifier: Apache-2.0
"""Image data, and sources as an image service may pass them."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

_T = TypeVar("_T")


@functools.lru_cache(maxsize=16)
def image(size: int, seed: int = 0) -> bytes:
    """Return reproducible random bytes for an image, without runs of zeros.

    :param size: number of bytes
    :param seed: another seed gives other bytes, unless the image is tiny
    """
    return random.Random(f"{size} {seed}").randbytes(size)


def check_bytes(actual: bytes, expected: bytes) -> None:
    """Fail unless both are equal. Images are too large for the diff of pytest."""
    __tracebackhide__ = True
    if actual == expected:
        return
    common = min(len(actual), len(expected))
    first = next((at for at in range(common) if actual[at] != expected[at]), common)
    pytest.fail(
        f"Wrong data: {len(actual)} bytes, expected {len(expected)}; first difference at byte "
        f"{first}"
    )


class SourceError(Exception):
    """Raised by a source that fails."""


class Source:
    """A source with ``read``.

    :param data: the bytes of the image
    :param portion: maximum bytes of a read; None for no limit
    :param before_read: called with the offset before each read
    :param end: raised at the end of the data; None for a normal end
    """

    def __init__(
        self,
        data: bytes,
        portion: int | None = None,
        before_read: Callable[[int], object] | None = None,
        end: BaseException | None = None,
    ) -> None:
        self._data = data
        self._portion = portion
        self._before_read = before_read
        self._end = end
        self.position = 0
        self.threads: set[int] = set()

    def read(self, length: int = -1) -> bytes:
        """Return the next bytes."""
        self.threads.add(threading.get_ident())
        if self._before_read is not None:
            self._before_read(self.position)
        wanted = len(self._data) if length is None or length < 0 else length
        wanted = wanted if self._portion is None else min(wanted, self._portion)
        portion = self._data[self.position : self.position + wanted]
        self.position += len(portion)
        if not portion and self._end is not None:
            raise self._end
        return portion


class OneBuffer:
    """A source that reuses one buffer and returns views of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._buffer = bytearray()
        self._position = 0

    def read(self, length: int) -> memoryview:
        """Return the next bytes, overwriting those of the previous read."""
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        portion = self._data[self._position : self._position + length]
        self._buffer[:] = b"\xee" * len(self._buffer)
        self._buffer[: len(portion)] = portion
        self._position += len(portion)
        return memoryview(self._buffer)[: len(portion)]


class Verifier:
    """A stand-in for the signature verifier of an image service.

    :param fail_at: raise `SourceError` after that many bytes; None for never
    :param refuse: raise `SourceError` when the image is complete
    """

    def __init__(self, fail_at: int | None = None, refuse: bool = False) -> None:
        self.data = bytearray()
        self._fail_at = fail_at
        self._refuse = refuse

    def update(self, data: Any) -> None:
        """Take the next bytes."""
        self.data += data
        if self._fail_at is not None and len(self.data) >= self._fail_at:
            raise SourceError("the verifier is out of order")

    def approve(self, size: int, checksum: str, multihash: str) -> None:
        """Judge the complete image."""
        if self._refuse:
            raise SourceError(f"the verifier refuses {size} bytes")


def together(*functions: Callable[[], _T]) -> list[_T | BaseException]:
    """Call functions at the same time, each on its own thread.

    :returns: what each function returned or raised
    """
    results: list[_T | BaseException] = [AssertionError("did not end") for _ in functions]
    start = threading.Barrier(len(functions))

    def run(number: int, function: Callable[[], _T]) -> None:
        start.wait()
        try:
            results[number] = function()
        except BaseException as exc:  # noqa: BLE001 - the caller checks it
            results[number] = exc

    threads = [
        threading.Thread(target=run, args=item, daemon=True) for item in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def succeeded(results: list[_T | BaseException]) -> list[_T]:
    """Return the results of `together`; raise the first error among them."""
    good = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        good.append(result)
    return good
