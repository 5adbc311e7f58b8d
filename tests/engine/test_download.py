# SPDX-License-Identifier: Apache-2.0
"""Every range comes out exact, or as an error: never short."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glance_store import exceptions
from glance_store.transfer.download import CHUNK_SIZE, Download, clip
from glance_store.transfer.interface import Extent, ImageReader

from .memory import MemoryReader, collect, pattern

CHUNK = 16
CONCURRENCIES = pytest.mark.parametrize("concurrency", [1, 2, 5])


def read_all(reader: MemoryReader, *arguments: Any, chunk_size: int = CHUNK) -> bytes:
    """Read a range to its end; what every download has in common is checked."""
    download = Download(reader, *arguments, chunk_size)
    chunks = list(download)
    assert all(0 < len(chunk) <= chunk_size for chunk in chunks)
    assert all(type(chunk) is bytes for chunk in chunks)
    reader.check_closed()
    data = b"".join(chunks)
    if download.length is not None:
        assert len(data) == download.length
    # The end stays the end, and close() may come as often as it likes.
    assert list(download) == []
    download.close()
    reader.check_closed()
    return data


class Image(NamedTuple):
    data: bytes
    layout: list[Extent]


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Data and holes of any length; some data is zeros as well."""
    layout, parts, offset = [], [], 0
    kinds = st.sampled_from(["data", "zeros", "hole"])
    for length, kind in draw(st.lists(st.tuples(st.integers(1, 60), kinds), max_size=8)):
        layout.append(Extent(offset, length, kind != "hole"))
        parts.append(pattern(length) if kind == "data" else bytes(length))
        offset += length
    return Image(b"".join(parts), layout)


@settings(deadline=None, max_examples=250)
@given(
    image=images(),
    offset=st.integers(0, 300),
    length=st.one_of(st.none(), st.integers(0, 300)),
    concurrency=st.integers(1, 4),
    most=st.one_of(st.none(), st.integers(1, 40)),
    chunk_size=st.integers(1, 50),
)
def test_all_ranges(
    image: Image,
    offset: int,
    length: int | None,
    concurrency: int,
    most: int | None,
    chunk_size: int,
) -> None:
    reader = MemoryReader(image.data, concurrency, layout=image.layout, most=most)
    stop = len(image.data) if length is None else offset + length
    assert read_all(reader, offset, length, chunk_size=chunk_size) == image.data[offset:stop]
    for start, size in reader.reads:
        assert size <= chunk_size
        assert start >= offset
        assert start + size <= stop
        for extent in image.layout:
            overlap = start < extent.offset + extent.length and extent.offset < start + size
            assert extent.data or not overlap, "a hole was fetched"


@settings(deadline=None, max_examples=60)
@given(
    data=st.binary(max_size=200),
    offset=st.integers(0, 250),
    length=st.one_of(st.none(), st.integers(0, 250)),
    most=st.one_of(st.none(), st.integers(1, 40)),
    concurrency=st.integers(1, 3),
)
def test_unknown_size(
    data: bytes, offset: int, length: int | None, most: int | None, concurrency: int
) -> None:
    reader = MemoryReader(data, concurrency, size=None, most=most)
    assert Download(MemoryReader(data, size=None), offset, length).length is None
    stop = len(data) if length is None else offset + length
    assert read_all(reader, offset, length) == data[offset:stop]


def test_the_double_is_a_reader() -> None:
    assert isinstance(MemoryReader(b""), ImageReader)


@pytest.mark.parametrize(
    ("size", "offset", "length", "expected"),
    [
        (None, 5, 10, None),
        (100, 0, None, 100),
        (100, 30, None, 70),
        (100, 30, 10, 10),
        (100, 30, 71, 70),
        (100, 100, None, 0),
        (100, 101, None, 0),
        (100, 101, 5, 0),
        (100, 30, 0, 0),
        (0, 0, None, 0),
    ],
)
def test_clip(size: int | None, offset: int, length: int | None, expected: int | None) -> None:
    assert clip(size, offset, length) == expected


@CONCURRENCIES
@pytest.mark.parametrize("offset", [50, 51, 10**9])
def test_an_offset_past_the_end(offset: int, concurrency: int) -> None:
    """There is nothing to deliver, and the backend is not even asked."""
    reader = MemoryReader(pattern(50), concurrency)
    download = Download(reader, offset, chunk_size=CHUNK)
    assert download.length == 0
    assert list(download) == []
    assert reader.reads == []
    reader.check_closed()


def test_the_usual_chunk() -> None:
    data = pattern(CHUNK_SIZE + 1)
    assert [len(chunk) for chunk in Download(MemoryReader(data))] == [CHUNK_SIZE, 1]


def test_a_large_hole_takes_the_memory_of_a_chunk() -> None:
    """All its pieces are one and the same object."""
    reader = MemoryReader(bytes(10 * CHUNK), layout=[Extent(0, 10 * CHUNK, False)])
    assert len({id(chunk) for chunk in list(Download(reader, chunk_size=CHUNK))}) == 1
    assert reader.reads == []


@CONCURRENCIES
@pytest.mark.parametrize("missing", [1, CHUNK, 3 * CHUNK + 1, 6 * CHUNK])
def test_a_truncated_image(missing: int, concurrency: int) -> None:
    """It has ended before the size that it announced: what is there is delivered, then an error."""
    size = 6 * CHUNK
    data = pattern(size)[: size - missing]
    reader = MemoryReader(data, concurrency, size=size)
    delivered: list[bytes] = []
    with pytest.raises(exceptions.TruncatedImage, match=f"byte {len(data)} of {size}"):
        collect(Download(reader, chunk_size=CHUNK), delivered)
    assert b"".join(delivered) == data[: len(data) // CHUNK * CHUNK]
    reader.check_closed()


@CONCURRENCIES
def test_extents_that_end_early(concurrency: int) -> None:
    reader = MemoryReader(pattern(90), concurrency, layout=[Extent(0, 50, True)])
    with pytest.raises(exceptions.TruncatedImage, match="byte 50 of 90"):
        list(Download(reader, chunk_size=CHUNK))
    reader.check_closed()


@CONCURRENCIES
@pytest.mark.parametrize("second", [Extent(55, 35, True), Extent(45, 45, False)])
def test_extents_with_a_gap_or_an_overlap(second: Extent, concurrency: int) -> None:
    """Zeros may not be made up where the backend has said nothing."""
    reader = MemoryReader(pattern(90), concurrency, layout=[Extent(0, 50, True), second])
    expected = f"byte {second.offset} .* next byte is 50"
    with pytest.raises(exceptions.BackendException, match=expected):
        list(Download(reader, chunk_size=CHUNK))
    reader.check_closed()


@CONCURRENCIES
def test_extents_past_the_end_of_the_range(concurrency: int) -> None:
    class Generous(MemoryReader):
        def extents(self, offset: int, length: int) -> Any:
            yield Extent(offset, length + 1000, True)

    data = pattern(90)
    assert read_all(Generous(data, concurrency), 10, 50) == data[10:60]


class TooMuch(MemoryReader):
    """Ignores the length, as a server that ignores the Range header."""

    def read_at(self, offset: int, length: int) -> bytes:
        super().read_at(offset, length)
        return self._data[offset:]


@CONCURRENCIES
def test_a_read_returns_too_much(concurrency: int) -> None:
    for size, length in ((90, None), (90, 40), (None, 40), (None, None)):
        reader = TooMuch(pattern(90), concurrency, size=size)
        with pytest.raises(exceptions.BackendException, match="90 bytes, but only 16 were"):
            list(Download(reader, 0, length, CHUNK))
        reader.check_closed()


@CONCURRENCIES
@pytest.mark.parametrize("number", range(6))
def test_a_read_fails(number: int, concurrency: int) -> None:
    """What came before it is delivered; then the error itself; then nothing more."""
    data, error = pattern(6 * CHUNK), OSError("disconnected")
    reader = MemoryReader(data, concurrency, failures={number * CHUNK: error})
    download = Download(reader, chunk_size=CHUNK)
    delivered: list[bytes] = []
    with pytest.raises(OSError, match="disconnected") as caught:
        collect(download, delivered)
    assert caught.value is error
    assert b"".join(delivered) == data[: number * CHUNK]
    reader.check_closed()
    assert list(download) == []
    download.close()
    reader.check_closed()


def test_a_read_of_unknown_size_fails() -> None:
    error = OSError("disconnected")
    reader = MemoryReader(pattern(90), size=None, failures={32: error})
    download = Download(reader, chunk_size=CHUNK)
    with pytest.raises(OSError, match="disconnected"):
        list(download)
    reader.check_closed()


@CONCURRENCIES
@pytest.mark.parametrize("error", [OSError("unreadable"), KeyboardInterrupt()], ids=repr)
def test_extents_fail(error: BaseException, concurrency: int) -> None:
    class Broken(MemoryReader):
        def extents(self, offset: int, length: int) -> Any:
            yield Extent(offset, 20, True)
            raise error

    data = pattern(90)
    reader = Broken(data, concurrency)
    delivered: list[bytes] = []
    with pytest.raises(type(error)) as caught:
        collect(Download(reader, chunk_size=CHUNK), delivered)
    assert caught.value is error
    assert b"".join(delivered) == data[:20]
    reader.check_closed()


@CONCURRENCIES
def test_a_read_raises_no_exception_class(concurrency: int) -> None:
    reader = MemoryReader(pattern(90), concurrency, failures={32: SystemExit(3)})
    with pytest.raises(SystemExit):
        list(Download(reader, chunk_size=CHUNK))
    reader.check_closed()


@CONCURRENCIES
def test_the_end_of_a_context_closes(concurrency: int) -> None:
    reader = MemoryReader(pattern(90), concurrency)
    with Download(reader, chunk_size=CHUNK) as download:
        assert next(download) == pattern(90)[:CHUNK]
        assert not reader.closes
    reader.check_closed()


def test_a_reader_that_cannot_tell_its_size_is_closed() -> None:
    class Broken(MemoryReader):
        @property
        def size(self) -> int:
            raise OSError("stale")

        @size.setter
        def size(self, value: int) -> None:
            pass

    reader = Broken(b"")
    with pytest.raises(OSError, match="stale"):
        Download(reader)
    reader.check_closed()


def test_a_child_breaks_off_nothing(tmp_path: Path) -> None:
    """A forked process has the connections of its parent, which goes on to read."""
    broken_off = tmp_path / "broken off"

    class Reader(MemoryReader):
        def interrupt(self) -> None:
            broken_off.touch()

    download = Download(Reader(pattern(3 * CHUNK)), chunk_size=CHUNK)
    got = [next(download)]
    pid = os.fork()
    if not pid:
        try:
            download.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert not broken_off.exists()
    collect(download, got)
    assert b"".join(got) == pattern(3 * CHUNK)
