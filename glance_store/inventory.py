# SPDX-License-Identifier: Apache-2.0
"""What a store reports about its contents: images, leftovers of uploads, and capacity."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

COMPLETE = "complete"
INCOMPLETE = "incomplete"
FOREIGN = "foreign"
# An image; an upload that is not complete (yet); something this library did not write.
STATES = (COMPLETE, INCOMPLETE, FOREIGN)


class StoredImage(NamedTuple):
    """One entry of a store.

    ``image_id`` is the id it has, or would have, as an image. ``uri`` is its location; None if it
    cannot be read as an image. ``size`` and ``used`` (space taken in the backend) are bytes,
    ``modified`` is seconds since 1970; None if the backend does not tell.
    """

    image_id: str
    uri: str | None
    size: int | None
    state: str
    modified: float | None = None
    used: int | None = None


class Leftover(NamedTuple):
    """What an interrupted upload left behind.

    ``name`` says what and where it is; ``proof``, how we know that an upload left it and nobody is
    writing it. ``remove`` checks again, then removes it; it raises `InUseByStore` if somebody is
    writing it.
    """

    name: str
    size: int | None
    modified: float | None
    proof: str
    remove: Callable[[], None]


class Capacity(NamedTuple):
    """Space of a backend, perhaps shared with others, in bytes; None if it does not tell."""

    total: int | None
    free: int | None
    used: int | None
