# SPDX-License-Identifier: Apache-2.0
"""What all ways of an upload have in common: the name of the image, its container, its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from glance_store import exceptions
from glance_store._drivers.swift import containers, deletion, errors
from glance_store._drivers.swift.client import Client
from glance_store._drivers.swift.publish import Name
from glance_store.i18n import _

_T = TypeVar("_T")

LOG = logging.getLogger(__name__)


class Upload:
    """What all writers of an image share.

    :param name: that the image will have
    :param uri: the location that it will have
    :param container_made: whether the container was made for this image, and goes with it
    :param ensure_container: makes the container again if it has gone, and says whether it was made
        for this image
    """

    holes = False

    def __init__(
        self, name: Name, uri: str, container_made: bool, ensure_container: Callable[[], object]
    ) -> None:
        self.name = name
        self.uri = uri
        self.metadata: dict[str, Any] = {}
        self._container_made = container_made
        self._ensure_container = ensure_container

    @property
    def _client(self) -> Client:
        return self.name.client

    def ensure_container(self) -> None:
        """Have the container made again if it has gone.

        An upload of the same id that failed may have removed it, when it was empty.

        :raises SwiftError: it may not be made
        """
        if self._ensure_container():
            self._container_made = True

    def into_container(self, send: Callable[[], _T]) -> _T:
        """Have something sent, once more with its container if that has gone.

        :param send: sends it
        :returns: what `send` returns
        :raises SwiftError: there is no container
        """
        try:
            return send()
        except exceptions.NotFound:
            self.ensure_container()
        return self.in_container(send)

    def in_container(self, send: Callable[[], _T]) -> _T:
        """Have something sent that makes no sense without its container.

        :param send: sends it
        :returns: what `send` returns
        :raises SwiftError: there is no container
        """
        try:
            return send()
        except exceptions.NotFound as exc:
            # The image that is not found is none that somebody has asked for.
            raise errors.SwiftError(
                _("The container %(container)s was removed while image %(image)s was stored"),
                container=self.name.container,
                image=self.name.obj,
            ) from exc

    def cancel(self) -> None:
        """Break off what is under way."""

    def segments(self) -> list[str]:
        """Return the names of all segments that may be there."""
        return []

    def close(self) -> None:
        """Let go of what a finished upload does not need."""
        try:
            self._client.account.close()
        except exceptions.GlanceStoreException as exc:
            LOG.warning("After the upload of image %s: %s", self.name.obj, exc)

    def abort(self) -> None:
        """Remove everything that this upload has stored; what cannot be removed is logged."""
        self.cancel()
        try:
            self.name.withdraw()
        except exceptions.GlanceStoreException as exc:
            LOG.error(
                "An upload has failed and may have left the object %s in the container %s: %s",
                self.name.obj,
                self.name.container,
                exc,
            )
        deletion.remove_objects(self._client, self.name.container, self.segments())
        if self._container_made:
            containers.remove_if_empty(self._client, self.name.container)
        self.close()
