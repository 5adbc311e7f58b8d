# SPDX-License-Identifier: Apache-2.0
"""What a store can do, and the check in front of its operations."""

from __future__ import annotations

import inspect

import pytest

from glance_store import exceptions
from glance_store.capabilities import BitMasks, StoreCapability, check

READ = BitMasks.READ_ACCESS
WRITE = BitMasks.WRITE_ACCESS


class Store(StoreCapability):
    @check
    def get(self, location, offset=0, chunk_size=None, context=None):
        """Return the arguments."""
        return location, offset, chunk_size, context

    @check
    def add(self, image_id, image_file, image_size, hashing_algo, context=None, verifier=None):
        return "added"

    @check
    def delete(self, location, context=None):
        return "deleted"

    @check
    def other(self, value):
        return value


class OldStore(StoreCapability):
    """Its get names neither an offset nor a size."""

    @check
    def get(self, location, **kwargs):
        return location, kwargs


def store_with(*masks, cls=Store):
    store = cls()
    store.set_capabilities(*masks)
    return store


def test_capabilities_of_the_class():
    class Reader(StoreCapability):
        _CAPABILITIES = BitMasks.READ_OFFSET

    assert Reader().capabilities == 3
    assert StoreCapability().capabilities == 0
    assert type(Reader().capabilities) is int


def test_capabilities_are_those_of_the_instance():
    class Reader(StoreCapability):
        _CAPABILITIES = BitMasks.RW_ACCESS

    one, two = Reader(), Reader()
    one.unset_capabilities(WRITE)
    assert not one.is_capable(WRITE)
    assert two.is_capable(WRITE)


@pytest.mark.parametrize("x", list(BitMasks))
@pytest.mark.parametrize("y", list(BitMasks))
def test_contains(x, y):
    assert StoreCapability.contains(x, y) == (set(bits(y)) <= set(bits(x)))


def bits(mask):
    return [bit for bit in range(8) if int(mask) >> bit & 1]


def test_is_capable_wants_all():
    store = store_with(BitMasks.READ_OFFSET)
    assert store.is_capable()
    assert store.is_capable(READ, BitMasks.READ_OFFSET)
    assert not store.is_capable(READ, WRITE)
    assert not store.is_capable(BitMasks.READ_RANDOM)
    assert not store_with(BitMasks.READ_OFFSET, BitMasks.DRIVER_REUSABLE).is_capable(BitMasks.ALL)


def test_set_adds():
    store = store_with(READ)
    store.set_capabilities(WRITE, BitMasks.DRIVER_REUSABLE)
    assert store.capabilities == READ | WRITE | BitMasks.DRIVER_REUSABLE


@pytest.mark.parametrize(
    ("access", "widest", "rest"),
    [
        (READ, BitMasks.READ_RANDOM, BitMasks.WRITE_RANDOM),
        (WRITE, BitMasks.WRITE_RANDOM, BitMasks.READ_RANDOM),
    ],
)
def test_r39_taking_an_access_takes_what_builds_on_it(access, widest, rest):
    store = store_with(BitMasks.RW_RANDOM, BitMasks.DRIVER_REUSABLE)
    store.unset_capabilities(access)
    assert store.capabilities == rest | BitMasks.DRIVER_REUSABLE
    # Giving the access back does not give back what was wider.
    store.set_capabilities(access)
    assert not store.is_capable(widest)


def test_unset_several():
    store = store_with(BitMasks.RW_RANDOM)
    store.unset_capabilities(READ, WRITE)
    assert store.capabilities == BitMasks.NONE


def test_update_does_nothing_in_the_base():
    store = store_with(READ)
    assert store.update_capabilities() is None
    assert store.capabilities == READ


@pytest.mark.parametrize(
    ("masks", "args", "kwargs", "error"),
    [
        ((), (), {}, exceptions.StoreGetNotSupported),
        ((WRITE,), (), {}, exceptions.StoreGetNotSupported),
        ((READ,), (), {}, None),
        ((READ,), (), {"offset": 0, "chunk_size": None}, None),
        ((READ,), (0, 0), {}, None),
        ((READ,), (), {"offset": 1}, exceptions.StoreRandomGetNotSupported),
        ((READ,), (), {"chunk_size": 1}, exceptions.StoreRandomGetNotSupported),
        ((), (), {"offset": 1}, exceptions.StoreRandomGetNotSupported),
        ((BitMasks.READ_OFFSET,), (), {"offset": 1}, None),
        ((BitMasks.READ_OFFSET,), (), {"chunk_size": 1}, exceptions.StoreRandomGetNotSupported),
        ((BitMasks.READ_CHUNK,), (), {"chunk_size": 1}, None),
        ((BitMasks.READ_CHUNK,), (), {"offset": 1}, exceptions.StoreRandomGetNotSupported),
        ((BitMasks.READ_RANDOM,), (), {"offset": 1, "chunk_size": 1}, None),
    ],
)
def test_get(masks, args, kwargs, error):
    store = store_with(*masks)
    if error is None:
        assert store.get("a place", *args, **kwargs)[0] == "a place"
        return
    with pytest.raises(error) as caught:
        store.get("a place", *args, **kwargs)
    assert type(caught.value) is error


@pytest.mark.parametrize("args", [(1,), (0, 1), (1, 1), (1, None, "context")])
def test_r38_positional_values_are_checked_too(args):
    with pytest.raises(exceptions.StoreRandomGetNotSupported):
        store_with(READ).get("a place", *args)
    store = store_with(BitMasks.READ_RANDOM)
    assert store.get("a place", *args)[1:][: len(args)] == args


def test_text_of_the_refusal_has_the_range():
    with pytest.raises(exceptions.StoreRandomGetNotSupported, match=r"17.*23"):
        store_with(READ).get("a place", offset=17, chunk_size=23)


def test_get_without_named_parameters_is_checked_by_keyword():
    assert store_with(READ, cls=OldStore).get("a place", context=1) == ("a place", {"context": 1})
    with pytest.raises(exceptions.StoreRandomGetNotSupported):
        store_with(READ, cls=OldStore).get("a place", offset=1)


@pytest.mark.parametrize("masks", [(), (READ,), (BitMasks.DRIVER_REUSABLE,)])
def test_writing_is_refused(masks):
    store = store_with(*masks)
    with pytest.raises(exceptions.StoreAddDisabled):
        store.add("id", None, 0, "md5")
    with pytest.raises(exceptions.StoreDeleteNotSupported):
        store.delete("a place")


def test_writing_is_let_through():
    store = store_with(WRITE)
    assert store.add("id", None, 0, "md5") == "added"
    assert store.delete("a place") == "deleted"


def test_other_operations_are_let_through_with_a_log_line(caplog):
    assert Store().other(3) == 3
    assert "other" in caplog.text


def test_decorated_method_keeps_its_name():
    assert Store.get.__name__ == "get"
    assert Store.get.__doc__ == "Return the arguments."
    assert list(inspect.signature(Store.get).parameters) == [
        "self",
        "location",
        "offset",
        "chunk_size",
        "context",
    ]
