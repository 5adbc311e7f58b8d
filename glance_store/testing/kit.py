# SPDX-License-Identifier: Apache-2.0
"""What the tests of the kit stand on: the hooks that a driver's author fills in, and helpers."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, ClassVar, TypeVar

import pytest

from glance_store import exceptions
from glance_store.capabilities import BitMasks
from glance_store.driver import Store
from glance_store.location import Location
from glance_store.testing.inputs import image
from glance_store.testing.watch import Watch

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

MIB = 1024 * 1024
ALGORITHM = "sha256"
WRITE = BitMasks.WRITE_ACCESS
RANGES = BitMasks.READ_RANDOM

_NEEDS = "_glance_store_needs"
_TOUCHES = "_glance_store_touches"

# What a further configuration of a driver can change, and a test can depend on.
ASPECTS = {
    "layout": "how an image lies in the backend: objects, segments, blocks, holes",
    "wire": "the requests that reach the backend, and what it answers",
    "account": "whose account is used, and with which credentials",
    "locations": "how ids and locations are written and understood",
    "locking": "what several users of one image or of one id can do at the same time",
}


def needs(*requirements: BitMasks | str) -> Callable[[_F], _F]:
    """Decorate a test: skip it for a store that lacks something.

    :param requirements: capabilities of the store, or names of attributes of the test class
    """

    def decorate(function: _F) -> _F:
        setattr(function, _NEEDS, requirements)
        return function

    return decorate


def touches(*aspects: str) -> Callable[[_F], _F]:
    """Decorate a test: say which changes of the configuration can change its outcome.

    On a class it holds for those of its tests that do not say it themselves.

    :param aspects: names of `ASPECTS`; none for a test that no configuration can change
    """
    _check_aspects("touches()", aspects)

    def decorate(decorated: _F) -> _F:
        if not isinstance(decorated, type):
            setattr(decorated, _TOUCHES, frozenset(aspects))
            return decorated
        for name, function in vars(decorated).items():
            if name.startswith("test_") and touched(function) is None:
                setattr(function, _TOUCHES, frozenset(aspects))
        return decorated

    return decorate


def touched(function: object) -> frozenset[str] | None:
    """Return what a test touches; None for one that does not say it, as it is not of the kit."""
    found: frozenset[str] | None = getattr(function, _TOUCHES, None)
    return found


def _check_aspects(where: str, aspects: Iterable[str]) -> None:
    # A tuple without its comma is a text, and its letters are not aspects.
    unknown = [aspect for aspect in aspects if aspect not in ASPECTS]
    if unknown:
        raise TypeError(f"{where} names {unknown}; the kit knows {', '.join(ASPECTS)}")


class Kit:
    """Base of all tests of the kit. Of its members, a driver's author overrides these.

    Hooks: `make_store` and, for a store that can write, `listing`; for one that cannot, `seed` and
    `missing_uri`. Optional: the fixture `backend`, `between_tests`, `allocated`, `held`.

    :cvar block_size: bytes of the writer's blocks. Sizes of images are chosen around it, so the
        smaller the quicker: make the store's blocks small and say so here
    :cvar holes: whether the store leaves holes for runs of zeros
    :cvar secrets: texts that no log line, error or representation may hold: passwords, keys and
        tokens of the configuration or in locations, chosen so that they occur nowhere else
    :cvar random_sequences: how many sequences of 20 random operations are tried; fewer where each
        operation takes seconds
    :cvar hostile_uris: locations that the store must refuse, besides those that every store must
    :cvar variant: for a further configuration of a driver: what it changes, names of `ASPECTS`.
        With the plugin `glance_store.testing.selection` it runs those tests alone that touch it.
        None for the main configuration, which runs all
    :cvar knows_the_living: whether the store can tell a living upload from a dead one
    :cvar finds_killed_uploads: whether `Store.leftovers` finds all that a killed upload leaves
    :ivar store: the store of this test, as long as it runs
    :ivar proxy: what fails requests between driver and server, in the form of
        `glance_store.testing.faults.Proxy`; set by `backend`, None where there is no server
    """

    __test__ = False

    block_size: ClassVar[int] = MIB
    holes: ClassVar[bool] = False
    random_sequences: ClassVar[int] = 15
    secrets: ClassVar[tuple[str, ...]] = ()
    hostile_uris: ClassVar[tuple[str, ...]] = ()
    variant: ClassVar[Collection[str] | None] = None
    knows_the_living: ClassVar[bool] = False
    finds_killed_uploads: ClassVar[bool] = False

    proxy: Any = None
    store: Store
    watch: Watch

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # The classes of the kit are no tests; what is made of them is, unless it says otherwise.
        if not cls.__module__.startswith("glance_store.testing") and "__test__" not in vars(cls):
            cls.__test__ = True
        _check_aspects(f"{cls.__name__}.variant", cls.variant or ())

    # -- hooks

    @pytest.fixture
    def backend(self) -> Any:
        """Bring up what the store needs: a directory, a server. Override with any fixture."""
        return None

    def make_store(self) -> Store:
        """Return a new, configured store on the backend of this test; called several times.

        All stores of one test see the same images.
        """
        raise NotImplementedError(f"{type(self).__name__} must define make_store()")

    def listing(self) -> Iterable[Any]:
        """Return everything that the backend holds, hidden and unfinished things included.

        The values are compared and sorted, nothing else. Needed for stores that can write.
        """
        raise NotImplementedError(f"{type(self).__name__} must define listing()")

    def seed(self, image_id: str, data: bytes) -> str:
        """Put an image into the backend; a store that cannot write needs another way.

        :param image_id: id of the image
        :param data: its bytes
        :returns: its location
        """
        return self.add(image_id, data)

    def missing_uri(self) -> str:
        """Return a well-formed location at which there is no image."""
        uri = self.place(b"soon gone")
        self.delete(uri)
        return uri

    def allocated(self, uri: str) -> int | None:
        """Return how many bytes of the backend an image takes up; None if that is unknown.

        :param uri: location of the image
        """
        return None

    def held(self) -> Counter[str]:
        """Return how much of what a driver must give back is in use in this process.

        Where a server of the test runs in the same process, count what is the driver's alone.
        """
        held = Counter(threads=threading.active_count())
        if os.path.isdir("/proc/self/fd"):
            held["descriptors"] = len(os.listdir("/proc/self/fd"))
        return held

    def wait_until_dead(self) -> None:
        """Wait until the backend has noticed that a client was killed."""

    def between_tests(self) -> None:
        """Clean up after a test, where `backend` is not made anew for each."""

    # -- the frame of each test

    @pytest.fixture(autouse=True)
    def _frame(self, request: pytest.FixtureRequest, backend: Any) -> Iterator[None]:
        self.watch = Watch(self.secrets)
        with self.watch.listening():
            self.store = self.new_store()
            self._skip_unless_fit(getattr(request.function, _NEEDS, ()))
            try:
                yield
            finally:
                self.between_tests()
                # pytest keeps this object to the end of the run, and so its connections.
                del self.store
        self.watch.check()

    def _skip_unless_fit(self, requirements: Iterable[BitMasks | str]) -> None:
        for requirement in requirements:
            if isinstance(requirement, str):
                if not getattr(self, requirement):
                    pytest.skip(f"{type(self).__name__} does not set {requirement}")
            elif not self.store.is_capable(requirement):
                pytest.skip(f"the store is not capable of {requirement.name}")

    # -- what tests do with a store: errors on the way are looked at for secrets

    def call(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Call a function of the driver."""
        try:
            return function(*args, **kwargs)
        except BaseException as exc:
            self.watch.note_error(exc)
            raise

    def new_store(self) -> Store:
        """Return a further store on the same backend."""
        return self.call(self.make_store)

    @staticmethod
    def new_id() -> str:
        """Return the id of an image that was never there."""
        return str(uuid.uuid4())

    def locate(self, uri: str, store: Store | None = None) -> Location:
        """Return the parsed form of a location."""
        store = store or self.store
        scheme = uri.partition(":")[0]
        place = store.get_store_location_class()
        return self.call(Location, scheme, place, store.conf, uri=uri, backend=store.backend_group)

    def add(
        self,
        image_id: str,
        source: Any,
        size: int | None = None,
        store: Store | None = None,
        **options: Any,
    ) -> str:
        """Store an image.

        :param image_id: its id
        :param source: bytes, or any source
        :param size: bytes announced; None for the right number, which is known for bytes only
        :param store: another store than that of the test
        :param options: further arguments of `add`
        :returns: its location
        """
        if isinstance(source, bytes):
            size = len(source) if size is None else size
            source = io.BytesIO(source)
        add = (store or self.store).add
        options.setdefault("hashing_algo", ALGORITHM)
        uri: str = self.call(add, image_id, source, size or 0, **options)[0]
        return uri

    def place(self, data: bytes, image_id: str | None = None) -> str:
        """Put an image into the backend, and return its location."""
        return self.seed(image_id or self.new_id(), data)

    def get(self, uri: str, store: Store | None = None, **bounds: Any) -> tuple[Any, int]:
        """Return an iterator over an image or a range of it, and the bytes that it promises."""
        store = store or self.store
        chunks, size = self.call(store.get, self.locate(uri, store), **bounds)
        return chunks, size

    def read(self, uri: str, store: Store | None = None, **bounds: Any) -> bytes:
        """Return an image or a range of it."""
        chunks, size = self.get(uri, store, **bounds)
        data = self.call(b"".join, chunks)
        assert size == len(data), "get() has promised another number of bytes than it delivers"
        return data

    def size(self, uri: str, store: Store | None = None) -> int:
        """Return the bytes of an image."""
        store = store or self.store
        return self.call(store.get_size, self.locate(uri, store))

    def delete(self, uri: str, store: Store | None = None) -> None:
        """Remove an image."""
        store = store or self.store
        self.call(store.delete, self.locate(uri, store))

    # -- what tests say about a store

    def check_missing(self, uri: str) -> None:
        """Fail unless an image can neither be read nor asked for its size."""
        with pytest.raises(exceptions.NotFound):
            self.get(uri)
        with pytest.raises(exceptions.NotFound):
            self.size(uri)

    @contextlib.contextmanager
    def leaving_nothing(self) -> Iterator[None]:
        """Fail unless the backend holds the same after the block as before it."""
        before = sorted(self.listing())
        yield
        assert sorted(self.listing()) == before, "something is left behind, or has gone"

    def check_free(self, image_id: str) -> None:
        """Fail unless an image of this id can be stored, as after a failed upload."""
        data = image(self.block_size + 3, seed=99)
        uri = self.add(image_id, data)
        assert self.read(uri) == data
        self.delete(uri)
