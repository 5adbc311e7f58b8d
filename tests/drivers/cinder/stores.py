# SPDX-License-Identifier: Apache-2.0
"""Stores on the Cinder of the tests, and what its API says of volumes and attachments."""

from __future__ import annotations

import dataclasses
import json
import urllib.request
from typing import Any

from oslo_config import cfg

from glance_store._drivers.cinder import Store as CinderStore
from glance_store._drivers.cinder.location import StoreLocation
from glance_store.location import Location
from tests.services.cinder import Cinder
from tests.waiting import until

__all__ = ["CinderStore", "StoreLocation"]

GROUP = "volumes"
# Attachments have a life of their own in this version.
VERSION = {"OpenStack-API-Version": "volume 3.54"}


@dataclasses.dataclass
class Context:
    """What a request of the image service carries, as far as drivers look at it."""

    auth_token: str = "unused"
    user_id: str = "somebody"
    project_id: str = "some-project"
    service_catalog: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, cinder: Cinder, user: str) -> Context:
        """Return the context of a request of one of Keystone's accounts."""
        token, about = cinder.keystone.token(user)
        account = cinder.keystone.accounts[user]
        return cls(token, account.user_id, account.project_id, v2_catalog(about["catalog"]))


def v2_catalog(catalog: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a catalog in the shape in which contexts carry it."""
    return [
        {
            "type": service["type"],
            "name": service["name"],
            "endpoints": [
                {"region": endpoint["region"], f"{endpoint['interface']}URL": endpoint["url"]}
                for endpoint in service["endpoints"]
            ],
        }
        for service in catalog
    ]


class Store(CinderStore):
    """A store whose callers need not bring a context for uploads."""

    WRITE_CHUNKSIZE = 64 * 1024
    READ_CHUNKSIZE = 64 * 1024

    def open_writer(self, image_id: str, size: int, context: Any = None) -> Any:
        return super().open_writer(image_id, size, context or Context())


def make_store(options: dict[str, object], kind: type[CinderStore] = Store) -> Any:
    """Return a configured store.

    :param options: of the store
    :param kind: its class
    """
    conf = cfg.ConfigOpts()
    store = kind(conf, GROUP)
    for name, value in options.items():
        conf.set_override(name, value, group=GROUP)
    store.configure(re_raise_bsc=True)
    return store


def location(store: CinderStore, uri: str) -> Location:
    """Return the parsed form of a location."""
    return Location("cinder", StoreLocation, store.conf, uri=uri, backend=GROUP)


class Listing:
    """Volumes and attachments of one account, as the API tells them."""

    def __init__(self, cinder: Cinder, user: str = "glance") -> None:
        self._url = f"{cinder.url}/{cinder.keystone.accounts[user].project_id}"
        self._token = cinder.keystone.token(user)[0]

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer to a request.

        :param path: after the project, such as ``/volumes``
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Auth-Token": self._token, "Content-Type": "application/json", **VERSION}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def volume(self, uri: str) -> dict[str, Any]:
        """Return the volume at a location."""
        found: dict[str, Any] = self.call("GET", f"/volumes/{uri.rpartition('/')[2]}")["volume"]
        return found

    def volumes(self) -> list[dict[str, Any]]:
        """Return the volumes that are not on their way out."""
        found = self.call("GET", "/volumes/detail")["volumes"]
        return [volume for volume in found if volume["status"] != "deleting"]

    def attachments(self) -> list[str]:
        """Return the ids of the attachments."""
        return [found["id"] for found in self.call("GET", "/attachments")["attachments"]]

    def all(self) -> list[str]:
        """Return everything by kind, id and status."""
        return [
            *(f"volume {found['id']} {found['status']}" for found in self.volumes()),
            *(f"attachment {found}" for found in self.attachments()),
        ]

    def wait_until_empty(self) -> None:
        """Wait until no volume is left, and fail if there is one that does not go."""
        left = self.all()
        self.clear()
        assert left == []

    def clear(self) -> None:
        """Delete everything, and wait until it has gone."""

        def gone() -> bool:
            # Ceph believes for half a minute that a killed process still uses its volume, which
            # Cinder therefore gives back.
            self.remove_all()
            return not self.call("GET", "/volumes")["volumes"]

        if self.call("GET", "/volumes")["volumes"]:
            until(gone, lambda: f"these go: {self.all()}", seconds=120, pause=0.2)

    def remove_all(self) -> None:
        """Delete everything."""
        for attachment in self.attachments():
            self.call("DELETE", f"/attachments/{attachment}")
        for volume in self.volumes():
            # By force: an earlier try may have failed.
            self.call("POST", f"/volumes/{volume['id']}/action", {"os-force_delete": {}})
