# SPDX-License-Identifier: Apache-2.0
"""Everything that this library raises on purpose.

`GlanceStoreException` is the base of all classes but `BackendException`, which callers have always
caught by its own name, its subclass, and `RedirectException`, which is a signal and not an error.
"""

from __future__ import annotations

import urllib.parse
from typing import Any

from glance_store.i18n import _


class BackendException(Exception):  # noqa: N818 - a public name
    """The backend refused or failed in a way that no other class here describes."""


class UnsupportedBackend(BackendException):
    """The backend cannot do what was asked."""


class RedirectException(Exception):  # noqa: N818 - a public name
    """The image must be fetched from another URL.

    :param url: the URL; the attribute `url` holds it parsed by `urllib.parse.urlparse`
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = urllib.parse.urlparse(url)


class GlanceStoreException(Exception):  # noqa: N818 - a public name
    """Base class of the library's exceptions.

    The text is available as `msg` and from `str()`.

    :param message: text of the error; None for the default text of the class (`message`)
    :param kwargs: values for the ``%(name)s`` placeholders of the text. If formatting fails, the
        text is kept unformatted: reporting one error must not raise another
    """

    message: Any = _("An unknown exception occurred")

    def __init__(self, message: Any = None, **kwargs: Any) -> None:
        text = self.message if message is None or message == "" else message
        if kwargs:
            try:
                text = text % kwargs
            except (KeyError, TypeError, ValueError):
                text = str(text)
        self.msg = text
        super().__init__(text)


class MissingCredentialError(GlanceStoreException):
    """A value required for authentication is missing."""

    message = _("Missing required credential: %(required)s")


class BadAuthStrategy(GlanceStoreException):
    """The server expects another authentication strategy."""

    message = _('Incorrect auth strategy, expected "%(expected)s" but received "%(received)s"')


class AuthorizationRedirect(GlanceStoreException):
    """Authentication has moved."""

    message = _("Redirecting to %(uri)s for authorization.")


class NotFound(GlanceStoreException):
    """The image is not in the backend."""

    message = _("Image %(image)s not found")


class UnknownHashingAlgo(GlanceStoreException):
    """Python's hashlib cannot compute the hash."""

    message = _("Unknown hashing algorithm identifier: %(algo)s")


class UnknownScheme(GlanceStoreException):
    """No configured store serves this scheme or has this identifier."""

    message = _("Unknown scheme '%(scheme)s' found in URI")


class BadStoreUri(GlanceStoreException):
    """The location is malformed."""

    message = _("The Store URI was malformed: %(uri)s")


class Duplicate(GlanceStoreException):
    """An image with this id exists, or another upload of it finished first."""

    message = _("Image %(image)s already exists")


class StorageFull(GlanceStoreException):
    """The backend has no room for the image."""

    message = _("There is not enough disk space on the image storage media.")


class StorageWriteDenied(GlanceStoreException):
    """The backend does not let this process write."""

    message = _("Permission to write image storage media denied.")


class AuthBadRequest(GlanceStoreException):
    """The authentication server could not understand the request."""

    message = _("Connect error/bad request to Auth service at URL %(url)s.")


class AuthUrlNotFound(GlanceStoreException):
    """There is no authentication server at this address."""

    message = _("Auth service at URL %(url)s not found.")


class AuthorizationFailure(GlanceStoreException):
    """The credentials were refused."""

    message = _("Authorization failed.")


class NotAuthenticated(GlanceStoreException):
    """The request carries no valid credentials."""

    message = _("You are not authenticated.")


class Forbidden(GlanceStoreException):
    """The credentials are valid, but not for this."""

    message = _("You are not authorized to complete this action.")


class Invalid(GlanceStoreException):
    """The data or an argument is not valid; nothing was stored."""

    message = _("Data supplied was not valid.")


class BadStoreConfiguration(GlanceStoreException):
    """The store is misconfigured."""

    message = _("Store %(store_name)s could not be configured correctly. Reason: %(reason)s")


class DriverLoadFailure(GlanceStoreException):
    """The driver's code could not be loaded."""

    message = _("Driver %(driver_name)s could not be loaded.")


class StoreDeleteNotSupported(GlanceStoreException):
    """The store cannot delete images: it is read-only, or its configuration is wrong."""

    message = _("Deleting images from this store is not supported.")


class StoreGetNotSupported(GlanceStoreException):
    """The store cannot read images."""

    message = _("Getting images from this store is not supported.")


class StoreRandomGetNotSupported(StoreGetNotSupported):
    """The store can read an image only from start to end."""

    message = _(
        "Getting images randomly from this store is not supported. "
        "Offset: %(offset)s, length: %(chunk_size)s"
    )


class StoreAddDisabled(GlanceStoreException):
    """The store cannot add images: it is read-only, or its configuration is wrong."""

    message = _("Configuration for store failed. Adding images to this store is disabled.")


class MaxRedirectsExceeded(GlanceStoreException):
    """The server redirected too many times."""

    message = _("Maximum redirects (%(redirects)s) was exceeded.")


class NoServiceEndpoint(GlanceStoreException):
    """The service catalogue has no address for the service."""

    message = _("Response from Keystone does not contain a Glance endpoint.")


class RegionAmbiguity(GlanceStoreException):
    """The service catalogue has several addresses and nothing to choose by."""

    message = _(
        "Multiple 'image' service matches for region %(region)s. This generally means that a "
        "region is required and you have not supplied one."
    )


class RemoteServiceUnavailable(GlanceStoreException):
    """The backend cannot be reached, or closed the connection. Another attempt may work."""

    message = _("Remote server where the image is present is unavailable.")


class HostNotInitialized(GlanceStoreException):
    """The host is not ready for the backend's connector."""

    message = _("Remote image server %(host)s is not initialized.")


class HasSnapshot(GlanceStoreException):
    """The image has snapshots and cannot be deleted."""

    message = _("The image has snapshot(s). The snapshot(s) must be deleted first.")


class InUseByStore(GlanceStoreException):
    """The image is in use in the backend and cannot be deleted now."""

    message = _("The image cannot be deleted because it is in use through the backend store.")


class TimeoutError(GlanceStoreException):  # noqa: A001 - a public name
    """The backend did not answer in time."""

    message = _("Store operation timed out after %(timeout)s seconds.")


class BackendUnavailable(RemoteServiceUnavailable, TimeoutError):  # noqa: N818 - as the others
    """The backend cannot be reached, or closed the connection. Another attempt may work.

    It has two bases because image services catch one of them when they read an image and the other
    when they write or delete one. They answer both with 503 "Service Unavailable".

    :ivar retry_after: seconds the backend asked to wait before the next attempt
    :ivar patience: seconds to keep retrying this kind of failure; None for the default
    """

    retry_after: float = 0.0
    patience: float | None = None


class TruncatedImage(GlanceStoreException):
    """The backend delivered fewer bytes than it announced."""

    message = _(
        "The stored image is incomplete: the backend ended at byte %(position)s of %(expected)s."
    )
