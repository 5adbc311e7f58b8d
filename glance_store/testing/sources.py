# SPDX-License-Identifier: Apache-2.0
"""Sources of any kind, with portions of any size."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import OneBuffer, Source, check_bytes, image
from glance_store.testing.kit import WRITE, Kit, needs, touches


def _pieces(data: bytes, longest: int) -> Iterator[bytes]:
    """Yield random portions of the data, some of them empty."""
    lengths = random.Random(longest)
    position = 0
    while position < len(data):
        length = lengths.randint(0, longest)
        yield data[position : position + length]
        position += length


class _Greedy:
    """A source that returns more than asked for."""

    def __init__(self, data: bytes, too_much: int) -> None:
        self._data = data
        self._too_much = too_much

    def read(self, length: int) -> bytes:
        """Return the next bytes and more."""
        portion = self._data[: length + self._too_much]
        self._data = self._data[length + self._too_much :]
        return portion


class _Odd:
    """A source that returns the same object from each read."""

    def __init__(self, portion: Any) -> None:
        self._portion = portion

    def read(self, length: int) -> Any:
        """Return that object."""
        return self._portion


@touches()
class Sources(Kit):
    """Sources of all kinds; anything else is refused."""

    def _check(self, source: Any, data: bytes) -> None:
        announced = self.add(self.new_id(), source, len(data))
        check_bytes(self.read(announced), data)

    @needs(WRITE)
    @pytest.mark.parametrize("portion", [1000, 65537], ids=["small", "uneven"])
    def test_short_reads(self, portion: int) -> None:
        """A source may return less than asked for."""
        data = image(2 * self.block_size + 5)
        self._check(Source(data, portion=portion), data)

    @needs(WRITE)
    def test_long_reads(self) -> None:
        """A source may return more than asked for; nothing is lost."""
        data = image(3 * self.block_size + 5)
        self._check(_Greedy(data, self.block_size // 2 + 1), data)

    @needs(WRITE)
    def test_reused_buffer(self) -> None:
        """A source may overwrite the buffer of the previous read."""
        data = image(5 * self.block_size + 5)
        self._check(OneBuffer(data), data)

    @needs(WRITE)
    def test_iterator(self) -> None:
        """A source may be an iterator of portions of any length, even empty ones."""
        data = image(3 * self.block_size + 5)
        self._check(_pieces(data, self.block_size // 3), data)

    @needs(WRITE)
    def test_iterator_of_large_parts(self) -> None:
        """The portions of an iterator may span several blocks."""
        data = image(5 * self.block_size + 5)
        cut = 3 * self.block_size + 1
        self._check(iter([data[:cut], data[cut:]]), data)

    @needs(WRITE)
    @pytest.mark.parametrize("kind", [memoryview, bytearray])
    def test_list_of_buffers(self, kind: type) -> None:
        """A source may be any iterable of bytes-like objects."""
        data = image(2 * self.block_size + 5)
        self._check([kind(piece) for piece in _pieces(data, self.block_size)], data)

    @needs(WRITE)
    def test_file(self, tmp_path: Path) -> None:
        """A source may be an open file, read from its current position."""
        data = image(2 * self.block_size + 5)
        (tmp_path / "source").write_bytes(b"read before" + data)
        with (tmp_path / "source").open("rb") as file:
            file.seek(len(b"read before"))
            self._check(file, data)

    @needs(WRITE)
    def test_source_is_read_by_its_owner(self) -> None:
        """A source is read only on the thread that called `add`, as it may depend on that."""
        data = image(4 * self.block_size)
        source = Source(data)
        self._check(source, data)
        assert source.threads == {threading.get_ident()}

    @needs(WRITE)
    @pytest.mark.parametrize(
        "source",
        [_Odd("text"), _Odd(None), ["text"], [1, 2], 7],
        ids=["text", "none", "list-of-texts", "list-of-numbers", "number"],
    )
    def test_no_source_of_bytes(self, source: Any) -> None:
        """A source that does not deliver bytes is refused, and leaves nothing."""
        image_id = self.new_id()
        with self.leaving_nothing(), pytest.raises(exceptions.Invalid):
            self.add(image_id, source, 5)
        self.check_free(image_id)
