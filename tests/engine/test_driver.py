# SPDX-License-Identifier: Apache-2.0
"""What the base class makes of a driver's writer and reader."""

from __future__ import annotations

import hashlib
import io
import logging
from typing import Any, ClassVar

import pytest
from oslo_config import cfg

from glance_store import capabilities, driver, exceptions, location
from glance_store.capabilities import BitMasks
from glance_store.location import Location

from .memory import BLOCK, MemoryReader, MemoryWriter, Source, Verifier, pattern

DATA = pattern(5 * BLOCK + 3)


class StoreLocation(location.StoreLocation):
    def parse_uri(self, uri: str) -> None:
        self.validate_schemas(uri, ("memory://",))
        self.image_id = uri.removeprefix("memory://")


class Store(driver.Store):
    """A driver as small as it gets: images are in a dict."""

    OPTIONS: ClassVar[list[cfg.Opt]] = [
        cfg.StrOpt("memory_color", default="red"),
        cfg.IntOpt("memory_limit"),
    ]
    _CAPABILITIES = BitMasks.READ_RANDOM | BitMasks.WRITE_ACCESS
    READ_CHUNKSIZE = 2 * BLOCK

    def __init__(self, conf: cfg.ConfigOpts, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self.images: dict[str, bytes] = {}
        self.sized = True
        self.writers: list[MemoryWriter] = []
        self.readers: list[MemoryReader] = []
        self.opened: list[tuple[str, int, Any]] = []

    def get_schemes(self) -> tuple[str, ...]:
        return ("memory",)

    def open_writer(self, image_id: str, size: int, context: Any = None) -> Any:
        self.opened.append((image_id, size, context))
        if image_id in self.images:
            raise exceptions.Duplicate(image=image_id)
        writer = MemoryWriter(on_commit=lambda: self._keep(image_id, writer))
        writer.uri = f"memory://{image_id}"
        writer.metadata = {"shelf": "2"}
        self.writers.append(writer)
        return writer

    def _keep(self, image_id: str, writer: MemoryWriter) -> None:
        self.images[image_id] = writer.content()

    def open_reader(self, location: Location, context: Any = None) -> Any:
        try:
            data = self.images[location.store_location.image_id]
        except KeyError:
            raise exceptions.NotFound(image=location.store_location.image_id) from None
        reader = MemoryReader(data, 2, size=len(data) if self.sized else None)
        self.readers.append(reader)
        return reader


@pytest.fixture
def conf() -> cfg.ConfigOpts:
    options = cfg.ConfigOpts()
    options([])
    return options


@pytest.fixture
def store(conf: cfg.ConfigOpts) -> Store:
    return Store(conf)


def place(image_id: str, store: Store) -> Location:
    location_class = store.get_store_location_class()
    return Location("memory", location_class, store.conf, uri=f"memory://{image_id}")


@pytest.mark.parametrize("size", [len(DATA), 0, str(len(DATA)), None])
def test_add(store: Store, size: Any) -> None:
    verifier = Verifier()
    result = store.add("one", io.BytesIO(DATA), size, "sha256", "context", verifier)
    assert result == (
        "memory://one",
        len(DATA),
        hashlib.md5(DATA).hexdigest(),
        hashlib.sha256(DATA).hexdigest(),
        {"shelf": "2"},
    )
    assert store.images == {"one": DATA}
    assert store.opened == [("one", int(size or 0), "context")]
    assert verifier.data == DATA


def test_add_as_before_the_multihash(store: Store) -> None:
    result = store.add("one", io.BytesIO(DATA), len(DATA))
    assert result == ("memory://one", len(DATA), hashlib.md5(DATA).hexdigest(), {"shelf": "2"})


def test_add_names_the_store_of_several(conf: cfg.ConfigOpts) -> None:
    store = Store(conf, "cellar")
    *_result, metadata = store.add("one", io.BytesIO(DATA), 0, "sha256")
    assert metadata == {"shelf": "2", "store": "cellar"}
    # The metadata is the caller's; what the writer has is not touched.
    assert store.writers[0].metadata == {"shelf": "2"}


@pytest.mark.parametrize("algorithm", ["nonesuch", "shake_128"])
def test_add_with_an_unknown_hash_opens_nothing(store: Store, algorithm: str) -> None:
    source = Source(DATA)
    with pytest.raises(exceptions.UnknownHashingAlgo, match=algorithm):
        store.add("one", source, len(DATA), algorithm)
    assert store.opened == []
    assert source.lengths == []


NO_NUMBERS = ["many", "1\n2", float("inf"), float("nan"), 1.5, b"1", [1], object(), "x" * 10**6]


@pytest.mark.parametrize(
    "size", [-1, 1 << 63, [], {}, *NO_NUMBERS], ids=lambda size: f"{size!r:.20}"
)
def test_add_with_a_size_that_is_none(store: Store, size: Any) -> None:
    if not size:
        assert store.add("one", io.BytesIO(DATA), size, "md5")[1] == len(DATA)
        return
    with pytest.raises(exceptions.Invalid, match="image size must be a number of bytes") as caught:
        store.add("one", io.BytesIO(DATA), size, "md5")
    check_short_line(str(caught.value))
    assert store.opened == []


def check_short_line(text: str) -> None:
    assert len(text.splitlines()) == 1
    assert len(text) < 300


@pytest.mark.parametrize("kind", [str, float])
def test_numbers_of_other_types(store: Store, kind: type) -> None:
    assert store.add("one", io.BytesIO(DATA), kind(len(DATA)), "md5")[1] == len(DATA)
    data, size = store.get(place("one", store), kind(3), kind(5))
    assert (b"".join(data), size) == (DATA[3:8], 5)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: f"{value!r:.20}")
@pytest.mark.parametrize("name", ["offset", "chunk_size"])
def test_get_with_a_range_that_is_no_number(store: Store, name: str, value: Any) -> None:
    store.images["one"] = DATA
    with pytest.raises(exceptions.Invalid, match="Cannot read") as caught:
        store.get(place("one", store), **{name: value})
    check_short_line(str(caught.value))
    assert store.readers == []


@pytest.mark.parametrize(("size", "text"), [(len(DATA) - 1, "exceeds"), (len(DATA) + 1, "mism")])
def test_add_with_a_wrong_size(store: Store, size: int, text: str) -> None:
    with pytest.raises(exceptions.Invalid, match=f"^Size {text}"):
        store.add("one", io.BytesIO(DATA), size, "md5")
    assert store.images == {}
    store.writers[0].check_aborted()


def test_add_what_is_there(store: Store) -> None:
    store.add("one", io.BytesIO(DATA), 0, "md5")
    with pytest.raises(exceptions.Duplicate, match="one"):
        store.add("one", io.BytesIO(b"other"), 0, "md5")
    assert store.images == {"one": DATA}


def test_a_store_that_is_read_only(store: Store) -> None:
    store.unset_capabilities(BitMasks.WRITE_ACCESS)
    for arguments in (("one", Source(DATA), 0), ("one", Source(DATA), 0, "md5")):
        with pytest.raises(exceptions.StoreAddDisabled):
            store.add(*arguments)
        assert arguments[1].lengths == []
    with pytest.raises(exceptions.StoreDeleteNotSupported):
        store.delete(place("one", store))
    assert store.opened == []


RANGES = [
    (0, None),
    (0, 10),
    (10, None),
    (10, 10),
    (BLOCK, 3 * BLOCK),
    (len(DATA) - 1, None),
    (len(DATA), None),
    (len(DATA) + 10, 5),
    (3, 10 * len(DATA)),
    (0, 0),
    (7, 0),
    (None, None),
]


@pytest.mark.parametrize(("offset", "length"), RANGES)
@pytest.mark.parametrize("sized", [True, False])
def test_get(store: Store, offset: int, length: int | None, sized: bool) -> None:
    store.images["one"], store.sized = DATA, sized
    data, size = store.get(place("one", store), offset=offset, chunk_size=length)
    start = offset or 0
    expected = DATA[start : start + length if length else None]
    assert size == (len(expected) if sized else 0)
    assert b"".join(data) == expected
    store.readers[0].check_closed()
    again, _size = store.get(place("one", store), offset, length)
    assert b"".join(again) == expected


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, -1), (-5, 10)])
def test_get_of_no_range(store: Store, offset: int, length: int | None) -> None:
    store.images["one"] = DATA
    with pytest.raises(exceptions.Invalid, match=str(min(offset, length or 0))):
        store.get(place("one", store), offset=offset, chunk_size=length)
    assert store.readers == []


def test_get_reads_in_the_pieces_that_the_store_says_now(store: Store) -> None:
    store.images["one"] = DATA
    data, _size = store.get(place("one", store))
    assert len(next(data)) == 2 * BLOCK
    data.close()
    store.READ_CHUNKSIZE = 10
    data, _size = store.get(place("one", store))
    assert len(next(data)) == 10
    data.close()
    for reader in store.readers:
        reader.check_closed()


def test_get_what_is_not_there(store: Store) -> None:
    with pytest.raises(exceptions.NotFound, match="one"):
        store.get(place("one", store))
    with pytest.raises(exceptions.NotFound, match="one"):
        store.get_size(place("one", store))


def test_get_from_a_store_without_ranges(store: Store) -> None:
    store.images["one"] = DATA
    store.unset_capabilities(BitMasks.READ_RANDOM)
    store.set_capabilities(BitMasks.READ_ACCESS)
    for arguments in ({"offset": 1}, {"chunk_size": 1}, {"offset": 1, "chunk_size": 1}):
        with pytest.raises(exceptions.StoreRandomGetNotSupported):
            store.get(place("one", store), **arguments)
    assert store.readers == []
    data, _size = store.get(place("one", store), 0, None)
    assert b"".join(data) == DATA
    store.unset_capabilities(BitMasks.READ_ACCESS)
    with pytest.raises(exceptions.StoreGetNotSupported):
        store.get(place("one", store))


@pytest.mark.parametrize(("sized", "expected"), [(True, len(DATA)), (False, 0)])
def test_get_size(store: Store, sized: bool, expected: int) -> None:
    store.images["one"], store.sized = DATA, sized
    assert store.get_size(place("one", store)) == expected
    store.readers[0].check_closed()
    assert store.readers[0].reads == []


def test_what_a_driver_has_to_say_itself(conf: cfg.ConfigOpts) -> None:
    class Bare(driver.Store):
        _CAPABILITIES = BitMasks.RW_ACCESS

    bare = Bare(conf)
    where = Location("memory", StoreLocation, conf)
    for call in (
        bare.get_schemes,
        lambda: bare.add("one", io.BytesIO(), 0, "md5"),
        lambda: bare.get(where),
        lambda: bare.get_size(where),
        lambda: bare.delete(where),
        lambda: bare.set_acls(where, public=True),
    ):
        with pytest.raises(NotImplementedError):
            call()
    assert bare.storage_ids() == set()
    assert bare.check_health() == "ok"
    assert bare.url_prefix is None


def test_a_class_without_capabilities_can_nothing(conf: cfg.ConfigOpts) -> None:
    store = driver.Store(conf)
    assert store.capabilities == 0
    with pytest.raises(exceptions.StoreAddDisabled):
        store.add("one", io.BytesIO(), 0, "md5")


def test_the_location_class_is_that_of_the_module(store: Store) -> None:
    assert store.get_store_location_class() is StoreLocation
    assert store.store_location_class is StoreLocation

    class Other(StoreLocation):
        pass

    store.store_location_class = Other
    assert store.get_store_location_class() is Other


class Broken(Store):
    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self.updates: list[int] = []
        self.reason: str | None = "no such shelf: put one up"

    def configure_add(self) -> None:
        if self.reason:
            raise exceptions.BadStoreConfiguration(store_name="memory", reason=self.reason)

    def update_capabilities(self) -> None:
        self.updates.append(self.capabilities)


@pytest.mark.parametrize("raised", [False, True])
def test_a_configuration_that_does_not_allow_to_write(
    conf: cfg.ConfigOpts, raised: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = Broken(conf)
    if raised:
        with pytest.raises(exceptions.BadStoreConfiguration, match="no such shelf"):
            store.configure(re_raise_bsc=True)
    else:
        store.configure()
    assert not store.is_capable(BitMasks.WRITE_ACCESS)
    assert store.is_capable(BitMasks.READ_RANDOM)
    assert store.updates == [BitMasks.READ_RANDOM]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no such shelf: put one up" in record.getMessage()
    assert "no such shelf" in str(store.configuration_error)
    store.reason = None
    store.configure()
    assert store.configuration_error is None


def test_a_configuration_that_is_fine(store: Store) -> None:
    store.configure()
    assert store.configuration_error is None
    assert store.capabilities == BitMasks.READ_RANDOM | BitMasks.WRITE_ACCESS


def test_the_options_of_a_single_store(store: Store, conf: cfg.ConfigOpts) -> None:
    assert store.backend_group is None
    assert store.weight == 0
    assert store.store_conf.memory_color == "red"
    conf.set_override("memory_color", "blue", group="glance_store")
    assert store.store_conf.memory_color == "blue"
    assert conf.backend_defaults.memory_color == "red"


def test_the_options_of_one_of_several_stores(conf: cfg.ConfigOpts) -> None:
    store = Store(conf, "cellar")
    assert (store.backend_group, store.name) == ("cellar", "cellar")
    assert store.weight == 0
    assert conf.cellar.store_description is None
    conf.set_override("weight", 7, group="cellar")
    assert store.weight == 7
    assert store.store_conf.memory_color == "red"
    conf.set_override("memory_color", "green", group="backend_defaults")
    assert store.store_conf.memory_color == "green"
    conf.set_override("memory_color", "blue", group="cellar")
    assert store.store_conf.memory_color == "blue"


def test_options_that_are_there_with_another_default_stay(conf: cfg.ConfigOpts) -> None:
    """The reserved stores of the image service have defaults of their own."""
    conf.register_opt(cfg.StrOpt("memory_color", default="grey"), group="reserved")
    store = Store(conf, "reserved")
    assert conf.reserved.memory_color == "grey"
    assert store.store_conf.memory_color == "grey"
    assert conf.reserved.memory_limit is None


def test_the_double_is_a_store() -> None:
    assert issubclass(Store, capabilities.StoreCapability)
