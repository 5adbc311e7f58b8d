# SPDX-License-Identifier: Apache-2.0
"""Images on datastores: layout, all or nothing, ranges, deletion."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping

import pytest

from glance_store import exceptions
from glance_store._drivers._objects.errors import NoResult
from glance_store._drivers.vmware_datastore.errors import DatastoreUnavailable
from glance_store._drivers.vmware_datastore.files import File, Files
from glance_store._drivers.vmware_datastore.writer import DatastoreWriter
from tests.drivers.vmware.conftest import MIB, Images, MakeStore
from tests.services.vcenter import VCenter

pytestmark = pytest.mark.services

DATA = random.Random(7).randbytes(9 * MIB + 5)
MOVE = "MoveDatastoreFile_Task"


def test_r234_layout(images: Images, server: VCenter) -> None:
    uri = images.add("image-1", DATA)
    assert uri in {
        f"vsphere://{server.host}/folder/openstack_glance/image-1?dsName={name}&dcPath=DC0"
        for name in ("ds1", "ds+two")
    }
    (file,) = server.files()
    assert file.parts[1:] == ("openstack_glance", "image-1")
    assert (server.folder_of("ds1").parent / file).read_bytes() == DATA


def test_image_of_an_older_release(images: Images, server: VCenter) -> None:
    """Those have the port in the host, spaces in the query, and the server's earlier name."""
    folder = server.folder_of("ds two") / "openstack_glance"
    for host in (f"{server.host}:443", server.host, "vcenter.example.org"):
        folder.mkdir(exist_ok=True)
        (folder / "old").write_bytes(DATA)
        uri = f"vsphere://{host}/folder/openstack_glance/old?dcPath=DC0&dsName=ds%20two"
        assert images.read(uri) == DATA
        assert images.read(uri, offset=5 * MIB - 3, chunk_size=7) == DATA[5 * MIB - 3 :][:7]
        images.delete(uri)
        assert server.files() == []
        with pytest.raises(exceptions.NotFound):
            images.delete(uri)


def test_r228_r229_length_is_announced_where_it_is_known(images: Images, server: VCenter) -> None:
    images.add("known", DATA)
    images.add("unknown", DATA, 0)
    known, unknown = [line for line in server.requests() if " PUT " in line][-2:]
    assert f"length={len(DATA)}" in known
    assert "length=-1 chunked" in unknown
    assert all(".part?" in line for line in (known, unknown))


def test_r227_missing_file(images: Images, server: VCenter) -> None:
    uri = f"vsphere://{server.host}/folder/openstack_glance/none?dcPath=DC0&dsName=ds1"
    for call in (images.read, images.delete):
        with pytest.raises(exceptions.NotFound):
            call(uri)
    nowhere = f"vsphere://{server.host}/folder/openstack_glance/x?dcPath=DC7&dsName=ds1"
    with pytest.raises(exceptions.NotFound):
        images.delete(nowhere)


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, 3, 4 * len(DATA)])
def test_r237_wrong_size(images: Images, server: VCenter, size: int) -> None:
    with pytest.raises(exceptions.Invalid):
        images.add("image", DATA, size)
    assert server.files() == []


@pytest.mark.parametrize("path", ["/folder", "/sdk"])
def test_r230_refusal_without_a_body(images: Images, server: VCenter, path: str) -> None:
    uri = images.add("image", b"data")
    server.trouble("fault", path=path, status=400, times=1000)
    for call in (images.delete,) if path == "/sdk" else (images.read,):
        with pytest.raises(exceptions.BackendException, match="the server answers 400 Bad Request"):
            call(uri)
    with pytest.raises(exceptions.BackendException, match="the server answers 400 Bad Request"):
        images.add("other", b"data")


def test_interim_answers(images: Images, server: VCenter) -> None:
    """They are not taken for the answer, which would then be that to the next request."""
    server.trouble("fault", interim=103, times=1000)
    uri = images.add("image", DATA)
    assert images.read(uri) == DATA
    images.delete(uri)
    assert server.files() == []


def test_eight_adds_of_one_id(make_store: MakeStore, server: VCenter) -> None:
    outcomes: list[object] = []
    stores = [Images(make_store()) for _number in range(2)]

    def add(number: int) -> None:
        data = bytes([number]) * (MIB + number)
        try:
            outcomes.append((stores[number % 2].add("image", data), data))
        except exceptions.Duplicate as exc:
            outcomes.append(exc)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    winners = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
    assert len(server.files()) == len(winners) == 1
    assert stores[0].read(winners[0][0]) == winners[0][1]


def test_duplicate_in_another_datastore(make_store: MakeStore, server: VCenter) -> None:
    Images(make_store(vmware_datastores=["DC0:ds1"])).add("image", b"first")
    with pytest.raises(exceptions.Duplicate):
        Images(make_store(vmware_datastores=["DC0:ds two:5", "DC0:ds1"])).add("image", b"second")
    assert len(server.files()) == 1


def test_two_uploads_to_two_datastores(
    make_store: MakeStore, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one finds the image of the first when it has given its own its name."""
    second = Images(
        make_store(vmware_datastores=["DC0:ds two:5", "DC0:ds1"], vmware_store_retry_timeout=0.1)
    )
    first = Images(make_store(vmware_datastores=["DC0:ds1"]))
    data = io.BytesIO(DATA)

    class Source:
        def read(self, length: int) -> bytes:
            if data.tell() == 0:
                first.add("image", b"first")
            return data.read(length)

    with pytest.raises(exceptions.Duplicate):
        second.store.add("image", Source(), len(DATA), "sha256")
    assert [str(path) for path in server.files()] == ["ds1/openstack_glance/image"]


def test_two_uploads_that_meet(
    make_store: MakeStore, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have moved their image when they look for the other one: one of them stays."""
    both = threading.Barrier(2, timeout=60)
    outcomes: dict[str, object] = {}
    for name in ("_publish", "_look_elsewhere"):
        step = getattr(DatastoreWriter, name)

        def together(*args: object, step: Callable[..., None] = step) -> None:
            both.wait()
            step(*args)

        monkeypatch.setattr(DatastoreWriter, name, together)

    def add(name: str, images: Images) -> None:
        try:
            outcomes[name] = images.read(images.add("image", name.encode()))
        except exceptions.Duplicate:
            outcomes[name] = None

    def preferring(name: str) -> Images:
        entries = [f"DC0:{one}:{int(one == name)}" for one in server.datastores]
        return Images(make_store(vmware_datastores=entries, vmware_store_retry_timeout=60.0))

    threads = [
        threading.Thread(target=add, args=(name, preferring(name))) for name in server.datastores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"ds1": None, "ds two": b"ds two"}
    assert [str(path) for path in server.files()] == ["ds two/openstack_glance/image"]


def test_a_name_that_is_said_to_be_taken(images: Images, server: VCenter) -> None:
    """Hosts of an NFS datastore know names for a while that are gone."""
    server.trouble("fault", operation=MOVE, soap="FileAlreadyExists")
    assert images.read(images.add("image", b"data")) == b"data"
    server.trouble("fault", operation=MOVE, soap="FileAlreadyExists", times=1000)
    with pytest.raises(exceptions.BackendUnavailable, match="FileAlreadyExists"):
        images.add("other", b"data")
    assert [path.name for path in server.files()] == ["image"]


@pytest.mark.parametrize(
    "operation", ["RetrievePropertiesEx", "SearchDatastore_Task", "DeleteDatastoreFile_Task"]
)
def test_a_vcenter_that_has_other_ids(images: Images, server: VCenter, operation: str) -> None:
    """What it does not know any more is looked up; a short outage passes as well."""
    uri = images.add("image", b"data")
    server.trouble("fault", operation=operation, soap="ManagedObjectNotFound")
    server.trouble("fault", operation=operation, status=503)
    before = len(server.requests())
    images.delete(uri)
    assert server.files() == []
    lines = server.requests()[before:]
    assert any("FindByInventoryPath" in line for line in lines)


@pytest.mark.parametrize("operation", ["MakeDirectory", MOVE])
def test_a_name_that_an_upload_does_not_find(
    images: Images, server: VCenter, operation: str
) -> None:
    """The image that is stored is never what is missing."""
    server.trouble("fault", operation=operation, soap="FileNotFound", times=9)
    if operation == MOVE:
        with pytest.raises(exceptions.BackendException, match="FileNotFound") as caught:
            images.add("image", b"data")
        assert not isinstance(caught.value, exceptions.NotFound)
        assert server.files() == []
    else:
        images.add("image", b"data")


def test_a_directory_that_is_missing(images: Images, server: VCenter) -> None:
    """The file server does not say what it is that it has not found."""
    server.trouble("fault", operation="MakeDirectory", soap="NoPermission", times=9)
    server.trouble("fault", method="PUT", status=404, times=9)
    words = "there is no directory openstack_glance .* lacks the privilege Datastore.FileManagement"
    with pytest.raises(exceptions.BackendException, match=words) as caught:
        images.add("image", b"data")
    assert not isinstance(caught.value, exceptions.NotFound)


@pytest.mark.parametrize("operation", [MOVE, ""], ids=["move", "put"])
def test_lost_answers_of_an_upload(images: Images, server: VCenter, operation: str) -> None:
    """What the server has done all the same is found."""
    if operation:
        server.trouble("fault", operation=operation, lose=1)
    else:
        server.trouble("fault", method="PUT", lose=1)
    uri = images.add("image", DATA)
    assert images.read(uri) == DATA
    assert len(server.files()) == 1
    server.trouble("fault", operation="DeleteDatastoreFile_Task", lose=1)
    images.delete(uri)
    assert server.files() == []


def test_a_move_that_is_never_answered(images: Images, server: VCenter) -> None:
    """An upload that cannot know what came of it leaves nothing."""
    server.trouble("fault", operation=MOVE, lose=1)
    server.trouble("fault", operation=MOVE, status=503, times=1000)
    server.trouble(
        "fault", method="HEAD", path="/folder/openstack_glance/image", times=1, status=404
    )
    server.trouble("fault", method="HEAD", status=503, times=1000)
    with pytest.raises(exceptions.BackendUnavailable):
        images.add("image", DATA)
    assert server.files() == []


def test_cut_in_the_middle(images: Images, server: VCenter) -> None:
    server.trouble("fault", method="PUT", cut=5 * MIB)
    with pytest.raises(exceptions.BackendUnavailable):
        images.add("image", DATA)
    assert server.files() == []
    uri = images.add("image", DATA)
    server.trouble("fault", method="GET", path="/folder/", cut=3 * MIB, times=2)
    assert images.read(uri) == DATA


def test_the_beginning_is_sent_again(images: Images, server: VCenter) -> None:
    server.trouble("fault", method="PUT", status=503)
    assert images.read(images.add("image", b"small")) == b"small"


def test_a_server_that_stores_less(
    images: Images, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "size", _one_less(Files.size))
    with pytest.raises(exceptions.BackendException, match="has stored"):
        images.add("image", DATA)
    assert server.files() == []


def _one_less(size):  # type: ignore[no-untyped-def]
    def less(self, file, action):  # type: ignore[no-untyped-def]
        found, headers = size(self, file, action)
        return found - 1, headers

    return less


def test_full_datastore(images: Images, server: VCenter) -> None:
    """The file server says that something has failed; the datastore says what."""

    class Source:
        sent = 0

        def read(self, length: int) -> bytes:
            self.sent += 1
            if self.sent == 3:
                for name in server.datastores:
                    server.trouble("datastore", name=name, free=0)
            return DATA[:length] if self.sent < 6 else b""

    server.trouble("fault", method="PUT", cut=7 * MIB)
    with pytest.raises(exceptions.StorageFull, match="is full, with 0 bytes free"):
        images.store.add("image", Source(), 0, "sha256")
    assert server.files() == []
    with pytest.raises(exceptions.StorageFull, match="No datastore takes an image"):
        images.add("image", DATA)


def test_old_figures(images: Images, server: VCenter) -> None:
    """A datastore that was full when the server last looked may have room."""
    for name in server.datastores:
        server.trouble("datastore", name=name, free=10 << 30, shown=0)
    images.add("image", DATA)


def test_choice_of_a_datastore(make_store: MakeStore, server: VCenter) -> None:
    def where(*entries: str, size: int = 5) -> str:
        images = Images(make_store(vmware_datastores=list(entries)))
        uri = images.add("image", b"x" * size)
        (file,) = server.files()
        images.delete(uri)
        return file.parts[0]

    server.trouble("datastore", name="ds1", free=1000)
    server.trouble("datastore", name="ds two", free=2000)
    assert where("DC0:ds1", "DC0:ds two") == "ds two"
    assert where("DC0:ds1:1", "DC0:ds two") == "ds1"
    assert where("DC0:ds1:1", "DC0:ds two", size=1500) == "ds two"
    server.trouble("datastore", name="ds two", free=2000, maintenance="inMaintenance")
    assert where("DC0:ds1", "DC0:ds two:3") == "ds1"
    server.trouble("datastore", name="ds1", accessible="false")
    with pytest.raises(exceptions.BackendUnavailable, match="maintenance mode"):
        where("DC0:ds1", "DC0:ds two:3")


def test_a_datastore_that_is_lost(
    make_store: MakeStore, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others take images; the simulator goes on to serve the files of one like that."""
    images = Images(make_store())
    size = Files.size

    def lost(self: Files, file: File, action: str) -> tuple[int, Mapping[str, str]]:
        if file.datastore == "ds1":
            raise DatastoreUnavailable(f"{action}: it is lost")
        return size(self, file, action)

    monkeypatch.setattr(Files, "size", lost)
    with pytest.raises(exceptions.BackendUnavailable, match="it is lost"):
        # As far as the server says it is well: it may have the image.
        images.add("image", b"data")
    server.trouble("datastore", name="ds1", accessible="false")
    assert images.read(images.add("image", b"data")) == b"data"
    assert [path.parts[0] for path in server.files()] == ["ds two"]
    with pytest.raises(exceptions.Duplicate):
        images.add("image", b"data")


def test_a_datastore_that_is_lost_during_an_upload(
    make_store: MakeStore, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is on another one."""
    images = Images(
        make_store(vmware_datastores=["DC0:ds1", "DC0:ds two:1"], vmware_store_retry_timeout=0.1)
    )
    size, lost = Files.size, False

    def look(self: Files, file: File, action: str) -> tuple[int, Mapping[str, str]]:
        if lost and file.datastore == "ds1":
            raise DatastoreUnavailable(f"{action}: it is lost")
        return size(self, file, action)

    class Source:
        def read(self, length: int) -> bytes:
            nonlocal lost
            first, lost = not lost, True
            return b"data" if first else b""

    monkeypatch.setattr(Files, "size", look)
    with pytest.raises(exceptions.BackendUnavailable, match="it is lost"):
        images.store.add("image", Source(), 4, "sha256")
    assert server.files() == []
    lost = False
    server.trouble("datastore", name="ds1", accessible="false")
    images.store.add("image", Source(), 4, "sha256")
    assert [str(path) for path in server.files()] == ["ds two/openstack_glance/image"]


@pytest.mark.parametrize("path", ["", "/openstack_glance", "/openstack_glance/sub", "/vm/disk"])
def test_only_images_are_deleted(images: Images, server: VCenter, path: str) -> None:
    """Not the directory with all of them, not a directory, not the disk of a machine."""
    uri = images.add("image", b"data")
    folder = server.folder_of("ds1")
    for name in ("openstack_glance/sub", "vm"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "vm" / "disk").write_bytes(b"disk")
    before = sorted(server.files())
    for wrong in (f"/folder{path}", path or "/x"):
        with pytest.raises((exceptions.Forbidden, exceptions.BadStoreUri, exceptions.NotFound)):
            images.delete(f"vsphere://{server.host}{wrong}?dcPath=DC0&dsName=ds1")
    assert sorted(server.files()) == before
    assert (folder / "vm" / "disk").exists()
    images.delete(uri)


def test_images_of_an_earlier_directory(images: Images, server: VCenter) -> None:
    """They are deleted as well, if they are called like one; directories are not."""
    folder = server.folder_of("ds1") / "before" / "images"
    folder.mkdir(parents=True)
    name = str(uuid.uuid4())
    uri = f"vsphere://{server.host}/folder/before/images/{name}?dcPath=DC0&dsName=ds1"
    (folder / name).mkdir()
    (folder / name / "disk").write_bytes(b"data")
    with pytest.raises(exceptions.Forbidden, match="it is a directory"):
        images.delete(uri)
    (folder / name / "disk").rename(folder / "disk")
    (folder / name).rmdir()
    (folder / "disk").rename(folder / name)
    (folder / f".{name}").write_bytes(b"data")
    assert images.read(uri) == b"data"
    for wrong in (f".{name}", f"{name}.vmdk", f"x{name}", name.upper()):
        with pytest.raises(exceptions.Forbidden, match="vmware_store_image_dir"):
            images.delete(uri.replace(name, wrong))
    images.delete(uri)
    assert [path.name for path in server.files()] == [f".{name}"]


@pytest.mark.parametrize("path", ["x%2F..%2F..%2Fvm%2Fdisk", "%2e%2e%2Fvm", ".%2Fx"])
def test_paths_that_lead_elsewhere(images: Images, server: VCenter, path: str) -> None:
    """Also where a slash is encoded."""
    uri = f"vsphere://{server.host}/folder/openstack_glance/{path}?dcPath=DC0&dsName=ds1"
    for call in (images.read, images.delete):
        with pytest.raises(exceptions.BadStoreUri, match="must not contain"):
            call(uri)


def test_replaced_while_it_is_read(images: Images, server: VCenter) -> None:
    big = DATA * 4
    uri = images.add("image", big)
    (file,) = server.files()
    chunks, _size = images.store.get(images.locate(uri))
    next(chunks)
    place = server.folder_of("ds1").parent / file
    place.write_bytes(bytes(len(big)))
    os.utime(place, (1, 1))
    with pytest.raises(exceptions.RemoteServiceUnavailable, match="replaced"):
        list(chunks)


def test_server_without_ranges(
    images: Images, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Files.request

    def without(self, method, file, action, headers=None, body=None):  # type: ignore[no-untyped-def]
        return request(self, method, file, action, None if body is None else headers, body)

    uri = images.add("image", DATA)
    monkeypatch.setattr(Files, "request", without)
    assert images.read(uri, offset=6 * MIB + 1, chunk_size=9) == DATA[6 * MIB + 1 :][:9]
    assert images.read(uri) == DATA


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "text/html; charset=utf-8"}, {"Content-Encoding": "gzip"}],
    ids=["page", "compressed"],
)
def test_what_is_not_the_file(
    images: Images, server: VCenter, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    """A proxy has its own pages, and its own mind about compression."""
    send = Files._send

    def other(self, *args):  # type: ignore[no-untyped-def]
        response = send(self, *args)
        response.headers.update(headers)
        return response

    uri = images.add("image", DATA)
    monkeypatch.setattr(NoResult, "patience", 0.1)
    monkeypatch.setattr(Files, "_send", other)
    for call in (lambda: images.read(uri), lambda: images.add("other", DATA)):
        with pytest.raises(exceptions.BackendUnavailable, match="the answer is not the file but a"):
            call()


def test_put_that_a_proxy_answers(
    images: Images, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A success without a file is none."""
    server.trouble("fault", method="PUT", status=201)
    with pytest.raises(exceptions.BackendException, match="has stored 0 of 4 bytes") as caught:
        images.add("image", b"data")
    assert not isinstance(caught.value, exceptions.NotFound)


def test_size_that_only_a_range_tells(
    images: Images, server: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy may take the length of a whole file away."""
    request = Files.request

    def without(self, method, file, action, headers=None, body=None):  # type: ignore[no-untyped-def]
        response = request(self, method, file, action, headers, body)
        if "Range" not in (headers or {}):
            response.headers.pop("Content-Length", None)
        return response

    monkeypatch.setattr(Files, "request", without)
    uri = images.add("image", DATA)
    assert images.store.get_size(images.locate(uri)) == len(DATA)
    assert images.read(uri) == DATA


_ADD = """
import sys
from oslo_config import cfg
from glance_store._drivers.vmware_datastore import Store
conf = cfg.ConfigOpts()
store = Store(conf, "datastores")
for name, value in {options!r}.items():
    conf.set_override(name, value, group="datastores")
store.configure(re_raise_bsc=True)
class Source:
    left = 12
    def read(self, length):
        self.left -= 1
        print("read", flush=True)
        return bytes(min(length, 1 << 20)) if self.left > 0 else b""
for number in range(100):
    store.add(f"image-{{number}}", Source(), 11 << 20, "sha256")
    Source.left = 12
"""


@pytest.mark.parametrize("seed", range(6))
def test_killed_uploads(images: Images, server: VCenter, seed: int) -> None:
    """No image is a part of one; what is left says by its name what it is."""
    program = _ADD.format(options=server.store_options())
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _line in range(random.Random(seed).randrange(1, 40)):
            process.stdout.readline()
        time.sleep(random.Random(seed).random() / 50)
        process.send_signal(signal.SIGKILL)
    for path in server.files():
        name = path.name
        if not (name.startswith(".image-") and name.endswith(".part")):
            assert (server.folder_of("ds1").parent / path).stat().st_size == 11 << 20
    assert images.read(images.add("image", b"after")) == b"after"
