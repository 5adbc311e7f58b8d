# SPDX-License-Identifier: Apache-2.0
"""The bucket for new images."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from glance_store import exceptions
from glance_store._drivers._objects.errors import ERRORS
from glance_store._drivers.s3 import endpoint
from glance_store._drivers.s3.client import Client
from glance_store._drivers.s3.errors import guarded
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)


class Bucket:
    """The bucket that a store writes to: looked for once, and again when it has gone.

    :param name: of the bucket
    :param may_create: whether it is created where it is missing
    """

    def __init__(self, name: str, may_create: bool) -> None:
        self.name = name
        self.may_create = may_create
        self._seen = False

    def forget(self) -> None:
        """Look for it again before the next upload."""
        self._seen = False

    def check(self, client: Client, patience: Patience) -> str:
        """Say in words where it is.

        :param client: sends the requests
        :param patience: for passing failures
        :raises BadStoreConfiguration: there is none, and it may not be created
        :raises GlanceStoreException: it cannot be reached
        """
        if self._is_there(client, patience):
            return f"bucket {self._shown(client)}"
        if self.may_create:
            return f"bucket {self._shown(client)} will be created by the first upload"
        raise exceptions.BadStoreConfiguration(self._missing(client))

    def ensure(self, client: Client, patience: Patience) -> None:
        """Look for it unless it was there before; create it if that is wanted.

        :param client: sends the requests
        :param patience: for passing failures
        :raises BackendException: there is none, and it may not be created
        :raises Forbidden: the service refuses to create it
        """
        if self._seen:
            return
        try:
            there = self._is_there(client, patience)
        except exceptions.Forbidden as exc:
            # To look for it is another right than to store objects in it.
            LOG.debug("It cannot be seen whether there is a bucket: %s", exc)
            there = True
        if not there:
            if not self.may_create:
                raise exceptions.BackendException(self._missing(client))
            self._make(client, patience)
        self._seen = True

    def _make(self, client: Client, patience: Patience) -> None:
        """Create it, unless somebody else was quicker."""
        try:
            patience.call(lambda: self._create(client))
        except ERRORS as exc:
            # Services have many words for that, and the same ones for a bucket of somebody else.
            with contextlib.suppress(*ERRORS):
                if self._is_there(client, patience):
                    LOG.debug("%s; another upload was quicker", exc)
                    return
            raise

    def _shown(self, client: Client) -> str:
        return f"{self.name} at {client.settings.place.shown}"

    def _missing(self, client: Client) -> str:
        return str(
            _(
                "The bucket %s does not exist: create it, or set s3_store_create_bucket_on_put to "
                "True"
            )
            % self._shown(client)
        )

    def _is_there(self, client: Client, patience: Patience) -> bool:
        action = _("Looking for the bucket %s") % self._shown(client)
        try:
            patience.call(
                lambda: guarded(lambda: client.s3.head_bucket(Bucket=self.name), action, self.name)
            )
        except exceptions.NotFound:
            return False
        return True

    def _create(self, client: Client) -> None:
        arguments: dict[str, Any] = {"Bucket": self.name}
        place = endpoint.location_constraint(client.settings.place.region)
        if place is not None:
            arguments["CreateBucketConfiguration"] = {"LocationConstraint": place}
        shown = self._shown(client)

        action = _("Creating the bucket %s") % shown
        guarded(lambda: client.s3.create_bucket(**arguments), action)
        LOG.info("Created the bucket %s", shown)
