# SPDX-License-Identifier: Apache-2.0
"""Stores of volumes, looked at through Cinder's API, and past it in the Ceph they are kept in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import requests

from .base import StoreUnderTest

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.services.cinder import Cinder

    from .rbd import CephPool

MICROVERSION = "3.54"
PATIENCE_SECONDS = 60.0


class Volumes:
    """Volumes and attachments of the service user.

    :param cinder: the server
    """

    def __init__(self, cinder: Cinder) -> None:
        self._cinder = cinder
        self._project = cinder.keystone.accounts["glance"].project_id
        self._session = requests.Session()
        self._session.trust_env = False
        # One that has been idle for seconds is closed by the server, perhaps in this very moment.
        self._session.headers["Connection"] = "close"
        self._session.headers["OpenStack-API-Version"] = f"volume {MICROVERSION}"
        self._session.headers["X-Auth-Token"] = cinder.keystone.token("glance")[0]

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request for a path after the project."""
        url = f"{self._cinder.url}/{self._project}/{path}"
        answer = self._session.request(method, url, timeout=60, **arguments)
        answer.raise_for_status()
        return answer

    def all(self) -> list[dict[str, Any]]:
        """Return all volumes, once none of them is about to go."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found: list[dict[str, Any]] = self.request("GET", "volumes/detail").json()["volumes"]
            if all(volume["status"] != "deleting" for volume in found):
                return found
            assert time.monotonic() < deadline, f"these volumes do not go: {found}"
            time.sleep(0.1)

    def wait_until_detached(self, volumes: Collection[str]) -> None:
        """Wait until some volumes, given by their ids, have no attachment any more."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = self.request("GET", "attachments").json()["attachments"]
            if not any(attachment["volume_id"] in volumes for attachment in found):
                return
            assert time.monotonic() < deadline, f"these attachments stay: {found}"
            time.sleep(0.1)


class CinderStore(StoreUnderTest):
    """A store of volumes of one type.

    :param cinder: the server
    :param kind: the volume type
    :param volumes: of the server
    :param pool: where volumes of this type are kept
    """

    driver = "cinder"

    def __init__(
        self, name: str, cinder: Cinder, kind: str, volumes: Volumes, pool: CephPool
    ) -> None:
        options = {key: str(value) for key, value in cinder.store_options(kind).items()}
        super().__init__(name, options)
        self._kind = kind
        self._volumes = volumes
        self._pool = pool

    @property
    def properties(self) -> dict[str, object]:
        return {"volume_type": self._kind, "use_multipath": False}

    def location(self, image_id: str) -> str:
        return f"cinder://{self.name}/{self._volume(image_id)['id']}"

    def old_location(self, image_id: str) -> str:
        return f"cinder://{self._volume(image_id)['id']}"

    def has(self, image_id: str) -> bool:
        # What is complete nobody may write any more.
        return any(
            volume["metadata"].get("readonly") == "True" for volume in self._volumes_of(image_id)
        )

    def read(self, image_id: str) -> bytes:
        volume = self._volume(image_id)
        size = int(volume["metadata"]["image_size"])
        return self._pool.read(f"volume-{volume['id']}", size)

    def remove(self, image_id: str) -> None:
        self._volumes.request("DELETE", f"volumes/{self._volume(image_id)['id']}")
        assert not self._volumes_of(image_id)

    def everything(self) -> list[str]:
        found = [it for it in self._volumes.all() if it["volume_type"] == self._kind]
        self._volumes.wait_until_detached({volume["id"] for volume in found})
        return sorted(volume["name"] for volume in found)

    def is_writing(self, image_id: str) -> bool:
        return any(volume["status"] == "in-use" for volume in self._volumes_of(image_id))

    def _volumes_of(self, image_id: str) -> list[dict[str, Any]]:
        return [
            volume
            for volume in self._volumes.all()
            if volume["name"] == f"image-{image_id}" and volume["volume_type"] == self._kind
        ]

    def _volume(self, image_id: str) -> dict[str, Any]:
        [volume] = self._volumes_of(image_id)
        return volume
