# SPDX-License-Identifier: Apache-2.0
"""What the tests know of a store, whatever it keeps images in."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar

from ..images import IMAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class StoreUnderTest(abc.ABC):
    """One store of a Glance; whatever it says comes from where the images are.

    :param name: of the store, an id among the enabled backends
    :param options: of the store's section in Glance's configuration
    """

    # What `enabled_backends` calls the driver.
    driver: ClassVar[str]
    # Of an upload that never ends: what is sent of it, so much that the store has begun to write,
    # and what would be sent in the end.
    sent_bytes: ClassVar[int] = IMAGE_SIZE
    announced_bytes: ClassVar[int] = 2 * IMAGE_SIZE
    # Whether zeros cost no space.
    thin: bool = False

    def __init__(self, name: str, options: Mapping[str, str]) -> None:
        self.name = name
        self.options = dict(options)

    @property
    @abc.abstractmethod
    def properties(self) -> dict[str, object]:
        """What Glance shows of the store to those who may know."""

    @abc.abstractmethod
    def location(self, image_id: str) -> str:
        """Return the location that an image has in this store."""

    def old_location(self, image_id: str) -> str | None:
        """Return the location of an image as early releases would have written it.

        :return: nothing, if they wrote the one of today
        """
        return None

    @abc.abstractmethod
    def has(self, image_id: str) -> bool:
        """Tell whether a complete image is there."""

    @abc.abstractmethod
    def read(self, image_id: str) -> bytes:
        """Return the bytes of an image."""

    @abc.abstractmethod
    def remove(self, image_id: str) -> None:
        """Remove an image."""

    @abc.abstractmethod
    def everything(self) -> list[str]:
        """Return a name for everything that is there, be it finished or not, sorted."""

    @abc.abstractmethod
    def is_writing(self, image_id: str) -> bool:
        """Tell whether something of an unfinished image is there."""

    def put_in_the_way(self, image_id: str) -> Callable[[], bool] | None:
        """Put something where an image would go.

        :return: what tells whether it is untouched, and removes it; nothing, if nothing can be in
            the way of an image
        """
        return None

    def used_bytes(self, image_id: str) -> int:
        """Return how much space an image takes, for a store where zeros take none."""
        raise NotImplementedError
