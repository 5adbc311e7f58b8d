# SPDX-License-Identifier: Apache-2.0
"""Which volumes are images of a store, and which are left over."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.cinder import volumes
from glance_store._drivers.cinder.client import ATTACHMENTS
from tests.drivers.cinder.stores import GROUP, Listing, make_store
from tests.waiting import until

if TYPE_CHECKING:
    from tests.services.cinder import Cinder

pytestmark = pytest.mark.services

ANY_AGE = -60.0


def test_leftovers(cinder: Cinder, listing: Listing) -> None:
    """Volumes of broken uploads that nobody has attached; not those of others, nor other stores."""
    store = make_store(cinder.store_options("plain"))
    client = store.get_cinderclient(version=ATTACHMENTS)

    def is_free(volume: Any) -> bool:
        return bool(client.volumes.get(volume.id).status == "available")

    def make(name: str, **metadata: str) -> Any:
        volume = client.volumes.create(1, name=name, volume_type="plain", metadata=metadata)
        until(lambda: is_free(volume), "a volume")
        return volume

    own = {volumes.STORE: GROUP, volumes.IMAGE_ID: "one", volumes.STATE: volumes.UPLOADING}
    left = make("image-one", **own)
    make("image-two", **{**own, volumes.STORE: "other"})
    make("somebody's")
    image = make("image-old")
    assert list(store.leftovers(3600)) == []
    (found,) = store.leftovers(ANY_AGE)
    assert found.name == f"volume {left.id} (image-one)"
    states = {one.image_id: (one.state, one.uri) for one in store.images()}
    assert states == {
        "one": ("incomplete", None),
        "old": ("complete", f"cinder://{GROUP}/{image.id}"),
    }
    attachment = client.attachments.create(left.id, None, str(uuid.uuid4()))
    assert list(store.leftovers(ANY_AGE)) == []
    with pytest.raises(exceptions.InUseByStore):
        found.remove()
    client.attachments.delete(attachment["id"])
    until(lambda: is_free(left), "the volume without its attachment")
    found.remove()
    until(lambda: not list(store.leftovers(ANY_AGE)), "the end of the volume")
    found.remove()
    listing.remove_all()
