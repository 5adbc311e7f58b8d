# SPDX-License-Identifier: Apache-2.0
"""Failures that every object store knows, and what they say of the request."""

from __future__ import annotations

from glance_store import exceptions

# What the translation of errors raises in every driver of an object store.
ERRORS = (exceptions.GlanceStoreException, exceptions.BackendException)

# Seconds for which an answer is borne that makes no sense: an overloaded proxy gives such ones.
_NONSENSE = 5.0


class NameTaken(exceptions.GlanceStoreException, exceptions.BackendException):
    """An object is there that should not be, or is not the one that it was.

    Who has set a condition knows what that means; to all others it is a refusal.
    """


class DamagedOnTheWay(exceptions.BackendUnavailable, exceptions.BackendException):
    """What has arrived is not what was sent; sending it again may help."""

    patience = _NONSENSE


class NoResult(exceptions.BackendUnavailable, exceptions.BackendException):
    """The answer is a success and lacks what a success has: perhaps it is from somebody else."""

    patience = _NONSENSE


class NotSeenYet(exceptions.BackendUnavailable, exceptions.BackendException):
    """Something is missing that was stored a moment ago: the servers may not agree on it yet."""

    patience = _NONSENSE


def is_refusal(error: BaseException) -> bool:
    """Tell whether it is certain that the service has not done what it was asked.

    Without an answer, or after one of the kind 5xx, it may have done it, or may still be at it; so
    it may when the answer is one that a proxy gives when it has waited for too long.

    :param error: what the translation of errors has raised
    """
    status = int(getattr(error, "status", 0))
    return 400 <= status < 500 and status not in (408, 409, 499)
