# SPDX-License-Identifier: Apache-2.0
"""What uploads leave that were broken off: never an image, and never in the way for ever."""

from __future__ import annotations

import errno
import functools
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store._drivers.rbd import claim, deletion
from glance_store._drivers.rbd.claim import OBJECT_PREFIX
from glance_store._drivers.rbd.leftovers import UPLOAD_PREFIX, new_name
from glance_store.testing.inputs import Source, together
from tests.drivers.rbd.conftest import MIB, WATCHED, Bed, add, delete, new_id, read, size_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.rbd.conftest import Program

pytestmark = pytest.mark.services

DATA = os.urandom(2 * MIB + 777)
# An upload that says when it has begun, and goes on when it is told to.
UPLOAD = """
from glance_store import exceptions
store = bed.store()
class Source:
    sent = 0
    def read(self, length):
        self.sent += 1
        if self.sent == 12:
            print("begun", flush=True)
            sys.stdin.readline()
        return os.urandom(1024 * 1024) if self.sent <= 64 else b""
try:
    store.add(sys.argv[1], Source(), 64 * 1024 * 1024, "sha256")
    print("stored", flush=True)
except (exceptions.GlanceStoreException, exceptions.BackendException) as error:
    print("failed", flush=True)
"""
# Uploads one image after the other, and says which are stored.
UPLOADS = """
store = bed.store()
print("ready", flush=True)
for name in sys.argv[1:]:
    print("begun", name, flush=True)
    add(store, name.encode() * 100_000, name)
    print("stored", name, flush=True)
"""


def until_added(bed: Bed, image_id: str) -> str:
    """Store an image as soon as the cluster has noticed that the client before is dead.

    One that has died in the moment of creating the image has a lock that ends after a minute.
    """
    deadline = time.monotonic() + WATCHED + claim._DURATION
    while True:
        try:
            return add(bed.store(), DATA, image_id)
        except exceptions.Duplicate:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def uploads(bed: Bed, image_id: str) -> list[str]:
    """Return what is there of uploads that are not complete."""
    return [name for name in bed.names() if name.startswith(f"{UPLOAD_PREFIX}{image_id}.")]


def check_incomplete(bed: Bed, image_id: str) -> None:
    """Fail unless there is something of an upload, and no image that can be read in any way."""
    store = bed.store()
    assert len(uploads(bed, image_id)) == 1
    for uri in (f"{store.url_prefix}{image_id}/snap", f"rbd://{image_id}"):
        with pytest.raises(exceptions.NotFound):
            read(store, uri)
        with pytest.raises(exceptions.NotFound):
            size_of(store, uri)


def make_leftover(bed: Bed, image_id: str, kind: str) -> str:
    """Leave what an upload leaves whose process has died; return what it is called."""
    name = new_name(image_id)
    bed.create(name, os.urandom(3 * MIB) if kind != "empty" else b"")
    if kind in ("unprotected", "protected"):
        with bed.image(name, read_only=False) as image:
            image.create_snap("snap")
            if kind == "protected":
                image.protect_snap("snap")
    return name


@pytest.mark.parametrize("kind", ["empty", "with-data", "unprotected", "protected"])
def test_leftover_is_replaced(bed: Bed, kind: str) -> None:
    image_id = new_id()
    make_leftover(bed, image_id, kind)
    check_incomplete(bed, image_id)
    uri = add(bed.store(), DATA, image_id)
    assert read(bed.store(), uri) == DATA
    assert (bed.names(), bed.trash()) == ([image_id], [])


def test_upload_that_died_while_it_gave_the_image_its_name(bed: Bed) -> None:
    """RBD has noted the name, and lists the image under the other one still."""
    image_id = new_id()
    name = make_leftover(bed, image_id, "protected")
    bed.pool.write_full(f"rbd_id.{image_id}", bed.pool.read(f"rbd_id.{name}"))
    uri = add(bed.store(), DATA, image_id)
    assert read(bed.store(), uri) == DATA
    assert (bed.names(), bed.trash()) == ([image_id], [])


def test_leftovers_of_several_uploads_and_of_other_images(bed: Bed) -> None:
    image_id = new_id()
    for _number in range(3):
        make_leftover(bed, image_id, "with-data")
    others = [make_leftover(bed, f"{image_id}.{end}", "empty") for end in ("a", "b.c")]
    add(bed.store(), DATA, image_id)
    assert (bed.names(), bed.trash()) == (sorted([image_id, *others]), [])


@pytest.mark.parametrize("use", ["snapshot", "clone"])
def test_leftover_that_others_need_is_kept_for_them(bed: Bed, use: str) -> None:
    """It is in nobody's way in the trash."""
    import rbd

    image_id = new_id()
    name = make_leftover(bed, image_id, "protected")
    if use == "snapshot":
        with bed.image(name, read_only=False) as image:
            image.create_snap("backup")
    else:
        rbd.RBD().clone(bed.pool, name, "snap", bed.pool, "clone", features=61)
    uri = add(bed.store(), DATA, image_id)
    assert read(bed.store(), uri) == DATA
    assert bed.trash() == [name]


def test_leftover_that_is_open(bed: Bed) -> None:
    image_id = new_id()
    name = make_leftover(bed, image_id, "with-data")
    with (
        bed.image(name, read_only=False),
        pytest.raises(exceptions.Duplicate, match="being uploaded"),
    ):
        add(bed.store(), DATA, image_id)


@pytest.mark.parametrize("kind", ["disk", "empty", "snapshot"])
def test_image_that_somebody_else_has_put_there(bed: Bed, kind: str) -> None:
    """Nothing of it is touched, whether it was there before the upload or came meanwhile."""
    content = os.urandom(MIB) if kind != "empty" else b""
    store = bed.store()
    for when in ("before", "meanwhile"):
        image_id = new_id()

        def put(_position: int = 0, image_id: str = image_id) -> None:
            if image_id in bed.names():
                return
            bed.create(image_id, content)
            if kind == "snapshot":
                with bed.image(image_id, read_only=False) as image:
                    image.create_snap("snap")

        if when == "before":
            put()
        with pytest.raises(exceptions.Duplicate, match="already exists"):
            store.add(image_id, Source(DATA, before_read=put), len(DATA), "sha256")
        with bed.image(image_id) as image:
            assert image.read(0, image.size()) == content
        assert uploads(bed, image_id) == []
        # What an older release has left between two steps can be read.
        if kind == "snapshot":
            assert read(store, f"{store.url_prefix}{image_id}/snap") == content
            continue
        with pytest.raises(exceptions.NotFound, match="incomplete"):
            read(store, f"{store.url_prefix}{image_id}/snap")


def test_name_that_is_given_by_half(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload has failed, and leaves nothing: such an image would be a leftover to the next."""
    import rbd

    class Half(rbd.RBD):  # type: ignore[misc]
        def rename(self, pool: Any, name: str, new: str) -> None:
            pool.write_full(f"rbd_id.{new}", pool.read(f"rbd_id.{name}"))
            raise rbd.OSError("error renaming image", errno=errno.EIO)

    image_id = new_id()
    with monkeypatch.context() as patched:
        patched.setattr(rbd, "RBD", Half)
        with pytest.raises(exceptions.BackendException):
            add(bed.store(), DATA, image_id)
    assert (bed.names(), bed.trash()) == ([], [])
    assert read(bed.store(), add(bed.store(), DATA, image_id)) == DATA


@pytest.mark.usefixtures("short_watch")
def test_upload_that_was_taken_for_dead(bed: Bed, program: Callable[..., Program]) -> None:
    """When it wakes up it fails, and harms nothing of the one that has replaced it."""
    image_id = new_id()
    sleeper = program(UPLOAD, image_id)
    assert sleeper.line() == "begun"
    sleeper.process.send_signal(signal.SIGSTOP)
    uri = until_added(bed, image_id)
    sleeper.process.send_signal(signal.SIGCONT)
    sleeper.go_on()
    assert sleeper.line() == "failed"
    assert read(bed.store(), uri) == DATA
    assert (bed.names(), bed.trash()) == ([image_id], [])


def test_answer_that_is_lost(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image got its name, and the answer says that the name is taken: by this image."""
    import rbd

    rename = rbd.RBD.rename

    class Repeated(rbd.RBD):  # type: ignore[misc]
        def rename(self, *arguments: object) -> None:
            rename(self, *arguments)
            raise rbd.ImageExists("error renaming image", errno=errno.EEXIST)

    monkeypatch.setattr(rbd, "RBD", Repeated)
    image_id = new_id()
    assert read(bed.store(), add(bed.store(), DATA, image_id)) == DATA
    assert bed.names() == [image_id]


@pytest.mark.usefixtures("short_watch")
def test_living_upload_is_not_replaced(
    bed: Bed, program: Callable[..., Program], caplog: pytest.LogCaptureFixture
) -> None:
    """r133: and once its client has been killed, and the cluster has noticed, it is replaced."""
    image_id = new_id()
    upload = program(UPLOAD, image_id)
    assert upload.line() == "begun"
    with pytest.raises(exceptions.Duplicate, match="being uploaded"):
        add(bed.store(), DATA, image_id)
    check_incomplete(bed, image_id)
    upload.kill()
    check_incomplete(bed, image_id)
    caplog.set_level("INFO", logger="glance_store")
    uri = until_added(bed, image_id)
    assert "Removing what an interrupted upload" in caplog.text
    assert read(bed.store(), uri) == DATA
    assert (bed.names(), bed.trash()) == ([image_id], [])


def test_of_two_that_replace_a_leftover_one_wins(bed: Bed) -> None:
    stores = [bed.store() for _number in range(4)]
    for _round in range(5):
        image_id = new_id()
        make_leftover(bed, image_id, "with-data")
        contents = [os.urandom(2 * MIB) for _store in stores]
        results = together(
            *[
                functools.partial(add, store, data, image_id)
                for store, data in zip(stores, contents, strict=True)
            ]
        )
        winners = [
            data
            for result, data in zip(results, contents, strict=True)
            if not isinstance(result, BaseException)
        ]
        losers = [type(result) for result in results if isinstance(result, BaseException)]
        assert (len(winners), losers) == (1, [exceptions.Duplicate] * 3)
        uri = f"{stores[0].url_prefix}{image_id}/snap"
        assert read(stores[0], uri) == winners[0]
        delete(stores[0], uri)
    assert (bed.names(), bed.trash()) == ([], [])


def test_claim_of_a_dead_upload_ends(bed: Bed) -> None:
    """An upload that died while it created its image is in the way for two minutes at most."""
    image_id = new_id()
    key = OBJECT_PREFIX + image_id
    bed.pool.lock_exclusive(key, "claim", "dead", desc="", duration=1)
    with pytest.raises(exceptions.Duplicate, match="just beginning"):
        add(bed.store(), DATA, image_id)
    until_added(bed, image_id)
    assert key not in [item.key for item in bed.pool.list_objects()]


@pytest.mark.usefixtures("short_watch")
def test_kill_at_random_moments(bed: Bed, program: Callable[..., Program]) -> None:
    """What is stored is whole, what is not cannot be read, and can be stored anew."""
    delays = random.Random(4)
    stored: list[str] = []
    names: list[str] = []
    for number in range(8):
        batch = [f"{number}-{position}" for position in range(40)]
        names += batch
        uploads = program(UPLOADS, *batch)
        assert uploads.line() == "ready"
        time.sleep(delays.uniform(0.0, 0.5))
        uploads.process.kill()
        said, _errors = uploads.end()
        stored += [line.split()[1] for line in said.splitlines() if line.startswith("stored ")]
    store = bed.store()
    found: dict[str, Any] = {}
    for name in names:
        uri = f"{store.url_prefix}{name}/snap"
        try:
            found[name] = read(store, uri)
        except exceptions.NotFound:
            with pytest.raises(exceptions.NotFound):
                read(store, f"rbd://{name}")
    # One more may have been killed between its completion and its word.
    assert set(stored) <= set(found)
    assert len(found) <= len(stored) + 8
    for name, data in found.items():
        assert data == name.encode() * 100_000
    # What is there and cannot be read has another name, and is not in the way for long.
    left = set(bed.names()) - set(found)
    assert all(name.startswith(UPLOAD_PREFIX) for name in left)
    for name in sorted({entry[len(UPLOAD_PREFIX) :].rpartition(".")[0] for entry in left}):
        assert read(store, until_added(bed, name)) == DATA
    assert not [name for name in bed.names() if name.startswith(UPLOAD_PREFIX)]
    assert bed.trash() == []


def test_upload_that_died_while_it_created_its_image(bed: Bed) -> None:
    """What is left then is a name that leads nowhere."""
    import rados

    image_id = new_id()
    name = make_leftover(bed, image_id, "empty")
    with bed.image(name) as image:
        header = f"rbd_header.{image.id()}"
    bed.pool.remove_object(header)
    with pytest.raises(exceptions.NotFound):
        read(bed.store(), f"rbd://{image_id}")
    assert read(bed.store(), add(bed.store(), DATA, image_id)) == DATA
    with pytest.raises(rados.ObjectNotFound):
        bed.pool.stat(header)


def test_leftovers_are_found(bed: Bed) -> None:
    """Dead ones, each once; not living ones, images, and what others have made."""
    store, image_id = bed.store(), new_id()
    uri = add(store, DATA, image_id)
    bed.create(new_name("dead.one"))
    bed.create("disk of a machine")
    assert list(store.leftovers(3600)) == []
    (left,) = store.leftovers(-60)
    assert left.name.endswith(f"/{UPLOAD_PREFIX}dead.one.{left.name.rpartition('.')[2]}")
    states = {image.image_id: (image.state, image.uri) for image in store.images()}
    assert states == {
        image_id: ("complete", uri),
        "dead.one": ("incomplete", None),
        "disk of a machine": ("foreign", None),
    }
    left.remove()
    left.remove()
    assert sorted(bed.names()) == sorted([image_id, "disk of a machine"])


def test_a_leftover_that_somebody_opens(bed: Bed) -> None:
    """It may be a living upload's after all."""
    store, name = bed.store(), new_name("image")
    bed.create(name)
    (left,) = store.leftovers(-60)
    with bed.image(name, read_only=False), pytest.raises(exceptions.InUseByStore):
        left.remove()
    assert bed.names() == [name]
    left.remove()
    assert bed.names() == []


# A deletion that is killed when it has taken the name of the image away.
DELETION = """
from glance_store._drivers.rbd import deletion
store = bed.store()
deletion.purge = lambda *_arguments: os._exit(9)
delete(store, sys.argv[1])
"""


@pytest.mark.parametrize("how", ["repeated", "found"])
def test_deletion_that_is_killed(bed: Bed, program: Callable[..., Program], how: str) -> None:
    """Its data goes when the image is deleted again, and is found otherwise."""
    import rbd

    store, image_id = bed.store(), new_id()
    uri = add(store, DATA, image_id)
    started = program(DELETION, uri)
    started.end()
    assert (started.process.returncode, bed.trash()) == (9, [image_id])
    # What others keep in the trash is theirs.
    bed.create("disk of a machine")
    rbd.RBD().trash_move(bed.pool, "disk of a machine", 0)
    if how == "repeated":
        with pytest.raises(exceptions.NotFound):
            delete(store, uri)
        with pytest.raises(exceptions.NotFound):
            delete(store, "rbd://disk of a machine")
    else:
        assert list(store.leftovers(3600)) == []
        (left,) = store.leftovers(-60)
        assert left.name.endswith(f"/{image_id} in the trash")
        assert left.size == len(DATA)
        left.remove()
        left.remove()
    assert bed.trash() == ["disk of a machine"]


def test_leftover_of_an_upload_in_the_trash(bed: Bed) -> None:
    import rbd

    store, name = bed.store(), new_name("image")
    bed.create(name)
    rbd.RBD().trash_move(bed.pool, name, 0)
    (left,) = store.leftovers(-60)
    left.remove()
    assert bed.trash() == []


def test_deleted_image_that_a_clone_needs_no_longer(bed: Bed) -> None:
    import rbd

    store, image_id = bed.store(), new_id()
    uri = add(store, DATA, image_id)
    options = ("--rbd-default-clone-format", 2)
    bed.command("clone", f"images/{image_id}@snap", "images/clone", *options)
    delete(store, uri)
    assert bed.trash() == [image_id]
    assert list(store.leftovers(-60)) == []
    rbd.RBD().remove(bed.pool, "clone")
    (left,) = store.leftovers(-60)
    left.remove()
    assert bed.trash() == []


def test_refused_deletion_leaves_no_mark(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the image would be lost if somebody kept it in the trash one day."""
    import rbd

    store, image_id = bed.store(), new_id()
    uri = add(store, DATA, image_id)

    def refuse(*_arguments: object) -> None:
        raise rbd.ImageBusy("it is used", errno.EBUSY)

    with monkeypatch.context() as patched:
        patched.setattr(deletion, "move_to_trash", refuse)
        with pytest.raises(exceptions.InUseByStore):
            delete(store, uri)
    with bed.image(image_id) as image:
        assert list(image.metadata_list()) == []
        assert image.is_protected_snap("snap")
    assert read(store, uri) == DATA


def test_damaged_images(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    """They do not hide the others."""
    import rados

    store, image_id, damaged = bed.store(), new_id(), [new_id(), new_name("damaged")]
    uri = add(store, DATA, image_id)
    headers = []
    for name in damaged:
        bed.create(name)
        with bed.image(name) as image:
            headers.append(f"rbd_header.{image.id()}")
        with rados.WriteOpCtx() as operation:
            bed.pool.set_omap(operation, ("size",), (b"?",))
            bed.pool.operate_write_op(operation, headers[-1])
    found = {image.image_id: (image.state, image.uri) for image in store.images()}
    assert found == {image_id: ("complete", uri), **dict.fromkeys(damaged, ("foreign", None))}
    assert list(store.leftovers(-60)) == []
    assert all(name in caplog.text for name in damaged)
    for header in headers:
        with rados.WriteOpCtx() as operation:
            bed.pool.set_omap(operation, ("size",), (bytes(8),))
            bed.pool.operate_write_op(operation, header)
