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
from glance_store._drivers.s3.errors import answer_of, guarded
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)


class Bucket:
    """The bucket a store writes to: checked once, and again when it is gone."""

    def __init__(self, name: str, may_create: bool) -> None:
        self.name = name
        self.may_create = may_create
        self._seen = False

    def forget(self) -> None:
        """Check the bucket again before the next upload."""
        self._seen = False

    def check(self, client: Client, patience: Patience) -> str:
        """Return in words where the bucket is; raise BadStoreConfiguration if it is missing."""
        try:
            there = self._is_there(client, patience)
        except exceptions.Forbidden:
            if not self._is_key_valid(client, patience):
                raise
            return f"bucket {self._shown(client)}, which the key may not look at"
        if there:
            return f"bucket {self._shown(client)}"
        if self.may_create:
            return f"bucket {self._shown(client)} will be created by the first upload"
        raise exceptions.BadStoreConfiguration(self._missing(client))

    def ensure(self, client: Client, patience: Patience) -> None:
        """Check once that the bucket exists; create it if the options allow that."""
        if self._seen:
            return
        try:
            there = self._is_there(client, patience)
        except exceptions.Forbidden as exc:
            # Looking for a bucket needs another right than storing objects in it.
            LOG.debug("Cannot see whether the bucket exists: %s", exc)
            there = True
        if not there:
            if not self.may_create:
                raise exceptions.BackendException(self._missing(client))
            self._make(client, patience)
        self._seen = True

    def _make(self, client: Client, patience: Patience) -> None:
        """Create the bucket, unless another upload already has."""
        try:
            patience.call(lambda: self._create(client))
        except ERRORS as exc:
            # Services report this in many ways, and someone else's bucket in the same ways.
            with contextlib.suppress(*ERRORS):
                if self._is_there(client, patience):
                    LOG.debug("%s; another upload created it first", exc)
                    return
            raise

    def _shown(self, client: Client) -> str:
        return f"{self.name} at {client.settings.endpoint.shown}"

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

    def _is_key_valid(self, client: Client, patience: Patience) -> bool:
        """Tell whether the key only lacks a right that storing images does not need.

        A response to HEAD does not give the reason of a refusal.
        """
        action = _("Listing the bucket %s") % self._shown(client)

        def look() -> Any:
            return client.s3.list_objects_v2(Bucket=self.name, MaxKeys=1)

        try:
            patience.call(lambda: guarded(look, action))
        except exceptions.Forbidden as exc:
            answer = answer_of(exc)
            return answer is not None and answer.code == "AccessDenied"
        return True

    def _create(self, client: Client) -> None:
        arguments: dict[str, Any] = {"Bucket": self.name}
        constraint = endpoint.location_constraint(client.settings.endpoint.region)
        if constraint is not None:
            arguments["CreateBucketConfiguration"] = {"LocationConstraint": constraint}
        shown = self._shown(client)

        action = _("Creating the bucket %s") % shown
        guarded(lambda: client.s3.create_bucket(**arguments), action)
        LOG.info("Created the bucket %s", shown)
