# SPDX-License-Identifier: Apache-2.0
"""What a store says of the things that it holds: images, leftovers of uploads, and room."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

COMPLETE = "complete"
INCOMPLETE = "incomplete"
FOREIGN = "foreign"
# An image, what an upload has not completed (yet), and what this library has not made.
STATES = (COMPLETE, INCOMPLETE, FOREIGN)


class StoredImage(NamedTuple):
    """One thing in a store.

    ``image_id`` is the id that it has or would have as an image; ``uri`` its location, None for
    what cannot be read as an image. ``size`` is in bytes, ``used`` the bytes that it takes in the
    backend; ``modified`` are seconds since 1970. They are None when the backend does not say.
    """

    image_id: str
    uri: str | None
    size: int | None
    state: str
    modified: float | None = None
    used: int | None = None


class Leftover(NamedTuple):
    """What an interrupted upload has left.

    ``name`` says what and where it is, ``proof`` why it is an upload's and nobody is writing it.
    ``remove`` looks once more and removes it: it raises `InUseByStore` when somebody writes it.
    """

    name: str
    size: int | None
    modified: float | None
    proof: str
    remove: Callable[[], None]


class Capacity(NamedTuple):
    """Room of a backend, which others may share, in bytes; None for what it does not say."""

    total: int | None
    free: int | None
    used: int | None
