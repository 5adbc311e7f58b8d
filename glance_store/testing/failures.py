# SPDX-License-Identifier: Apache-2.0
"""Failed uploads leave nothing, whatever failed and whenever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import Source, SourceError, check_bytes, image
from glance_store.testing.kit import WRITE, Kit, needs, touches

# Announced and delivered size, each in (blocks, bytes).
WRONG_SIZES = {
    "one-byte-instead-of-none-more": ((0, 1), (0, 2)),
    "nothing-instead-of-one-byte": ((0, 1), (0, 0)),
    "a-byte-too-many": ((1, 0), (1, 1)),
    "a-byte-short": ((1, 0), (1, -1)),
    "a-byte-past-blocks": ((3, 0), (3, 1)),
    "a-byte-short-of-blocks": ((3, 0), (3, -1)),
    "blocks-too-many": ((3, 5), (7, 0)),
    "blocks-short": ((7, 0), (3, 5)),
}
BLOCKS = 5
# Maximum bytes that the engine reads ahead of what is written.
_READ_AHEAD = 16 * 1024 * 1024


class Interrupt(BaseException):
    """Stands for exceptions that stop a thread, such as GreenletExit."""


@touches("layout")
class Failures(Kit):
    """Wrong sizes, failing sources, images visible too early, leaked resources."""

    @needs(WRITE)
    @pytest.mark.parametrize(("announced", "delivered"), WRONG_SIZES.values(), ids=WRONG_SIZES)
    def test_wrong_size(self, announced: tuple[int, int], delivered: tuple[int, int]) -> None:
        """An image with more or fewer bytes than announced is refused."""
        image_id = self.new_id()
        data = image(delivered[0] * self.block_size + delivered[1])
        size = announced[0] * self.block_size + announced[1]
        with self.leaving_nothing(), pytest.raises(exceptions.Invalid):
            self.add(image_id, data, size)
        self.check_free(image_id)

    @touches()
    @needs(WRITE)
    @pytest.mark.parametrize("size", [-1, "many"])
    def test_size_that_is_none(self, size: Any) -> None:
        """A size that is not a number of bytes is refused."""
        with self.leaving_nothing(), pytest.raises(exceptions.Invalid):
            self.add(self.new_id(), Source(image(10)), size)

    @touches("layout", "wire")
    @needs(WRITE)
    @pytest.mark.parametrize("block", range(BLOCKS + 1))
    def test_source_that_raises(self, block: int) -> None:
        """What a source raises, at any block, reaches the caller; nothing is left."""
        image_id = self.new_id()
        error = SourceError("the client has gone")
        for announced in (BLOCKS * self.block_size + 1, 0):
            source = Source(image(block * self.block_size), end=error)
            with self.leaving_nothing():
                with pytest.raises(SourceError) as caught:
                    self.add(image_id, source, announced)
                assert caught.value is error
        self.check_free(image_id)

    @touches()
    @needs(WRITE)
    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, Interrupt])
    def test_interrupt(self, interrupt: type[BaseException]) -> None:
        """An interrupted upload leaves nothing."""
        image_id = self.new_id()
        source = Source(image(3 * self.block_size), end=interrupt())
        with self.leaving_nothing(), pytest.raises(interrupt):
            self.add(image_id, source, BLOCKS * self.block_size)
        self.check_free(image_id)

    @touches("layout", "account")
    @needs(WRITE)
    def test_other_images_are_not_touched(self) -> None:
        """A failed upload does not harm other images."""
        data = image(2 * self.block_size + 3)
        uri = self.add(self.new_id(), data)
        with pytest.raises(SourceError):
            self.add(self.new_id(), Source(image(3 * self.block_size), end=SourceError("gone")))
        check_bytes(self.read(uri), data)

    @touches("layout", "wire", "locking")
    @needs(WRITE)
    @pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
    def test_image_is_invisible_until_it_is_complete(self, known: bool) -> None:
        """While an upload runs, nobody can read the image."""
        image_id = self.new_id()
        # Find out the location. If it does not depend on the id alone, this test proves little.
        expected = self.add(image_id, image(10))
        self.delete(expected)
        # Large enough that part of it is written before the last block is read.
        data = image(_READ_AHEAD + 8 * self.block_size)
        tried = []

        def look(position: int) -> None:
            if position >= len(data) - self.block_size:
                self.check_missing(expected)
                tried.append(position)

        source = Source(data, before_read=look)
        uri = self.add(image_id, source, len(data) if known else 0)
        assert tried
        check_bytes(self.read(uri), data)

    @touches("layout", "locking")
    @needs(WRITE)
    def test_failed_uploads_hold_nothing(self) -> None:
        """Failed uploads leave no threads or open files."""

        def fail() -> None:
            with pytest.raises(SourceError):
                self.add(self.new_id(), Source(image(3 * self.block_size), end=SourceError("gone")))

        self._check_holds_nothing(fail)

    @touches("layout", "wire", "locking")
    def test_downloads_hold_nothing(self) -> None:
        """Downloads leave no threads or open files, whether complete, abandoned or failed."""
        data = image(2 * self.block_size)
        uri, missing = self.place(data), self.missing_uri()

        def read() -> None:
            check_bytes(self.read(uri), data)
            self.call(self.get(uri)[0].close)
            self.check_missing(missing)

        self._check_holds_nothing(read)

    def _check_holds_nothing(self, step: Callable[[], object]) -> None:
        """Check that a step, if repeated, does not hold more and more.

        It may open connections that are kept for later, the more the slower the machine is: these
        end, a leak does not.
        """
        step()
        step()
        for _round in range(4):
            before = self.held()
            for _number in range(5):
                step()
            grown = self.held() - before
            if not grown:
                return
        raise AssertionError(f"each round holds more than the one before: {grown}")
