# SPDX-License-Identifier: Apache-2.0
"""Small helpers that drivers and their users share."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from glance_store.transfer.digest import get_hasher

__all__ = ["chunkiter", "chunkreadable", "get_hasher", "is_uuid_like", "synchronized"]

_F = TypeVar("_F", bound=Callable[..., Any])


def is_uuid_like(val: Any) -> bool:
    """Tell whether a value is a UUID in its canonical form: lower case, with dashes.

    :param val: anything
    """
    try:
        return bool(str(uuid.UUID(val)) == val)
    except (AttributeError, TypeError, ValueError):
        return False


def chunkreadable(iter: Any, chunk_size: int = 65536) -> Any:  # noqa: A002 - a public name
    """Return an iterable of chunks.

    :param iter: an object with ``read(n)``, or an iterable, which is returned as it is
    :param chunk_size: bytes to read at once
    """
    return chunkiter(iter, chunk_size) if hasattr(iter, "read") else iter


def chunkiter(fp: Any, chunk_size: int = 65536) -> Iterator[Any]:
    """Yield what an object reads until it reads nothing.

    :param fp: an object with ``read(n)``
    :param chunk_size: bytes to read at once
    """
    while chunk := fp.read(chunk_size):
        yield chunk


def synchronized(*args: Any, **kwargs: Any) -> Callable[[_F], _F]:
    """Decorate a function so that only one call of it runs at a time.

    The arguments are those of `oslo_concurrency.lockutils.synchronized`; with ``external=True`` the
    lock holds between processes. Its name on disk starts with ``glance_store-``.
    """
    # Imported late: most processes that import this package never take such a lock.
    from oslo_concurrency import lockutils

    decorator: Callable[..., Any] = lockutils.synchronized_with_prefix("glance_store-")
    return cast("Callable[[_F], _F]", decorator(*args, **kwargs))
