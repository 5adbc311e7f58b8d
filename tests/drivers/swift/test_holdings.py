# SPDX-License-Identifier: Apache-2.0
"""Which images, and which segments that no image has, are found in the containers of an account."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.swift.conftest import SEGMENT, locate, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from glance_store._drivers.swift import BaseStore
    from tests.drivers.swift.account import Account

pytestmark = pytest.mark.services

ANY_AGE = -60.0
SIZE = 2 * SEGMENT + 7


def add(store: BaseStore, image_id: str) -> str:
    uri: str = store.add(image_id, io.BytesIO(image(SIZE)), SIZE, "sha256")[0]
    return uri


@pytest.fixture(params=["static", "dynamic"])
def kind(request: pytest.FixtureRequest) -> str:
    """Have large objects be of one kind."""
    if request.param == "dynamic":
        request.getfixturevalue("no_static")
    return str(request.param)


def test_segments_of_images_are_none(
    kind: str, store: BaseStore, account: Account, container: str
) -> None:
    """Whatever characters the ids have, and whichever kind the manifests are."""
    ids = ["a b", "a+b", "a_b", "ä", "a", str(uuid.uuid4())]
    uris = {image_id: add(store, image_id) for image_id in ids}
    left = "a_b-0123456789abcdef-00001"
    account.call("PUT", f"/{container}/{left}", b"half")
    found = {one.uri: one for one in store.images() if one.state == "complete"}
    assert {one.image_id: uri for uri, one in found.items()} == uris
    assert {one.size for one in found.values()} == {SIZE}
    (leftover,) = store.leftovers(ANY_AGE)
    assert leftover.name == f"segments {container}/a_b-0123456789abcdef-"
    assert list(store.leftovers(3600)) == []
    leftover.remove()
    assert list(store.leftovers(ANY_AGE)) == []
    for uri in uris.values():
        assert read(store, uri) == image(SIZE)
        store.delete(locate(store, uri))
    assert account.objects(container) == []


def test_of_an_id_that_was_stored_again(
    kind: str, store: BaseStore, account: Account, container: str
) -> None:
    """The image of an id has segments of its own; those of an upload before it are left over."""
    add(store, "other")
    for number in (1, 2):
        name = f"image-0123456789abcdef-{number:05d}"
        account.call("PUT", f"/{container}/{name}", b"half")
    uri = add(store, "image")
    (leftover,) = store.leftovers(ANY_AGE)
    assert leftover.size == 8
    leftover.remove()
    assert read(store, uri) == image(SIZE)


def test_one_that_goes_on(store: BaseStore, account: Account, container: str) -> None:
    """Another segment has come, or the manifest has, since it was found."""
    add(store, "other")
    name = f"/{container}/image-0123456789abcdef-0000"
    account.call("PUT", f"{name}1", b"half")
    (leftover,) = store.leftovers(ANY_AGE)
    account.call("PUT", f"{name}2", b"more")
    with pytest.raises(exceptions.InUseByStore):
        leftover.remove()
    (leftover,) = store.leftovers(ANY_AGE)
    manifest = {"X-Object-Manifest": f"{container}/image-0123456789abcdef-"}
    account.call("PUT", f"/{container}/image", b"", manifest)
    with pytest.raises(exceptions.InUseByStore):
        leftover.remove()
    assert len(account.objects(container)) == 7
    assert list(store.leftovers(ANY_AGE)) == []


def test_segments_of_older_releases(store: BaseStore, account: Account, container: str) -> None:
    """They are no images, and nobody can say that they are left over."""
    add(store, "other")
    for number in (1, 2):
        account.call("PUT", f"/{container}/old-{number:05d}", b"data")
    account.call("PUT", f"/{container}/old", b"", {"X-Object-Manifest": f"{container}/old-"})
    found = {one.image_id: one.size for one in store.images()}
    assert found == {"other": SIZE, "old": 8}
    assert list(store.leftovers(ANY_AGE)) == []


def test_several_containers(
    make: Callable[..., BaseStore], account: Account, container: str
) -> None:
    store = make(multiple_containers_seed=2)
    uris = {add(store, image_id) for image_id in ("aa1", "aa2", "bb1")}
    account.call("PUT", f"/{container}_bb/x-0123456789abcdef-00001", b"half")
    assert {one.uri for one in store.images() if one.uri} == uris
    assert len(list(store.leftovers(ANY_AGE))) == 1
