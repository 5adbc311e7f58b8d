# SPDX-License-Identifier: Apache-2.0
"""Failures common to all object stores, and what each says about the request."""

from __future__ import annotations

from glance_store import exceptions

# What the error translation of every object-store driver raises.
ERRORS = (exceptions.GlanceStoreException, exceptions.BackendException)

# Seconds to retry after a response that makes no sense: an overloaded proxy sends such responses.
_NONSENSE = 5.0


class NameTaken(exceptions.GlanceStoreException, exceptions.BackendException):
    """An object exists that should not, or it is not the one it was.

    A caller that set a condition knows what this means; to any other it is a refusal.
    """


class DamagedInTransit(exceptions.BackendUnavailable, exceptions.BackendException):
    """The stored data differs from the data sent; sending it again may help."""

    patience = _NONSENSE


class NoResult(exceptions.BackendUnavailable, exceptions.BackendException):
    """The response reports success without its result; it may come from a proxy."""

    patience = _NONSENSE


class NotSeenYet(exceptions.BackendUnavailable, exceptions.BackendException):
    """Something stored a moment ago is missing; not all servers may know it yet."""

    patience = _NONSENSE


def is_refusal(error: BaseException) -> bool:
    """Tell whether the service certainly did not do what it was asked.

    Without a response, or after a 5xx, it may have done it or may still be doing it. The same goes
    for the statuses that a proxy sends after waiting too long.
    """
    status = int(getattr(error, "status", 0))
    return 400 <= status < 500 and status not in (408, 409, 499)
