# SPDX-License-Identifier: Apache-2.0
"""Base of the kit's tests: the hooks that a driver author implements, and helpers."""

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

# What another configuration of a driver can change, and a test can depend on.
ASPECTS = {
    "layout": "how an image is stored in the backend: objects, segments, blocks, holes",
    "wire": "the requests to the backend, and its responses",
    "account": "which account and credentials are used",
    "locations": "how ids and locations are written and parsed",
    "locking": "what several users of one image or one id can do at the same time",
}


def needs(*requirements: BitMasks | str) -> Callable[[_F], _F]:
    """Decorate a test: skip it if a requirement is not met.

    :param requirements: capabilities of the store, or names of attributes of the test class that
        must be set
    """

    def decorate(function: _F) -> _F:
        setattr(function, _NEEDS, requirements)
        return function

    return decorate


def touches(*aspects: str) -> Callable[[_F], _F]:
    """Decorate a test: declare which aspects of a configuration can affect it.

    On a class, it applies to all tests without a declaration of their own.

    :param aspects: keys of `ASPECTS`; none for a test that no configuration can affect
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
    """Return the aspects that affect a test; None for a test that is not of the kit."""
    found: frozenset[str] | None = getattr(function, _TOUCHES, None)
    return found


def _check_aspects(where: str, aspects: Iterable[str]) -> None:
    # Also catches a tuple without its comma: a string, whose letters are not aspects.
    unknown = [aspect for aspect in aspects if aspect not in ASPECTS]
    if unknown:
        raise TypeError(f"{where} names {unknown}, but the kit knows {', '.join(ASPECTS)}")


class Kit:
    """Base of all tests of the kit. A driver author overrides these members.

    Required: `make_store` and, for a store that can write, `listing`; for one that cannot, `seed`
    and `missing_uri`. Optional: the fixture `backend`, `between_tests`, `allocated`, `held`.

    :cvar block_size: bytes of the writer's blocks. Image sizes depend on it, so small blocks make
        the tests fast
    :cvar holes: whether the store leaves holes for runs of zeros
    :cvar secrets: strings that must not appear in any log line, error or repr: passwords, keys and
        tokens from the configuration or locations, chosen so that they occur nowhere else
    :cvar random_sequences: number of sequences of 20 random operations to try; set a lower one if
        an operation takes seconds
    :cvar hostile_uris: locations that this store must refuse, besides those that every store must
    :cvar variant: for an additional configuration of a driver: the aspects it changes, keys of
        `ASPECTS`. With the plugin `glance_store.testing.selection`, only tests that depend on these
        run. None for the main configuration, which runs all tests
    :cvar knows_the_living: whether the store can tell a running upload from a dead one
    :cvar finds_killed_uploads: whether `Store.leftovers` finds everything a killed upload leaves
    :ivar store: the store of the current test
    :ivar proxy: a `glance_store.testing.faults.Proxy` between driver and server; set by `backend`,
        None if there is no server
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
        # pytest collects subclasses, unless they opt out, but not the classes of the kit.
        if not cls.__module__.startswith("glance_store.testing") and "__test__" not in vars(cls):
            cls.__test__ = True
        _check_aspects(f"{cls.__name__}.variant", cls.variant or ())

    # -- hooks

    @pytest.fixture
    def backend(self) -> Any:
        """Set up what the store needs, such as a server. Override with any fixture."""
        return None

    def make_store(self) -> Store:
        """Return a new, configured store on the backend of this test. Called several times.

        All stores of one test must see the same images.
        """
        raise NotImplementedError(f"{type(self).__name__} must define make_store()")

    def listing(self) -> Iterable[Any]:
        """Return everything in the backend, including what is hidden or unfinished.

        The values are only compared and sorted. Required for stores that can write.
        """
        raise NotImplementedError(f"{type(self).__name__} must define listing()")

    def seed(self, image_id: str, data: bytes) -> str:
        """Put an image into the backend. Override it for a store that cannot write.

        :param image_id: id of the image
        :param data: its bytes
        :returns: its location
        """
        return self.add(image_id, data)

    def missing_uri(self) -> str:
        """Return a valid location without an image."""
        uri = self.place(b"soon gone")
        self.delete(uri)
        return uri

    def allocated(self, uri: str) -> int | None:
        """Return how many bytes an image takes up in the backend; None if unknown.

        :param uri: location of the image
        """
        return None

    def held(self) -> Counter[str]:
        """Count the resources in this process that a driver must release.

        If a test server runs in the same process, count only those of the driver.
        """
        held = Counter(threads=threading.active_count())
        if os.path.isdir("/proc/self/fd"):
            held["descriptors"] = len(os.listdir("/proc/self/fd"))
        return held

    def wait_until_dead(self) -> None:
        """Wait until the backend has noticed that a client is dead."""

    def between_tests(self) -> None:
        """Clean up after a test, if `backend` outlives it."""

    # -- set-up of each test

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
                # pytest keeps this object, and with it the connections, until the end of the run.
                del self.store
        self.watch.check()

    def _skip_unless_fit(self, requirements: Iterable[BitMasks | str]) -> None:
        for requirement in requirements:
            if isinstance(requirement, str):
                if not getattr(self, requirement):
                    pytest.skip(f"{type(self).__name__} does not set {requirement}")
            elif not self.store.is_capable(requirement):
                pytest.skip(f"the store is not capable of {requirement.name}")

    # -- operations for tests; every error is checked for secrets

    def call(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Call a function of the driver."""
        try:
            return function(*args, **kwargs)
        except BaseException as exc:
            self.watch.note_error(exc)
            raise

    def new_store(self) -> Store:
        """Return another store on the same backend."""
        return self.call(self.make_store)

    @staticmethod
    def new_id() -> str:
        """Return an unused image id."""
        return str(uuid.uuid4())

    def locate(self, uri: str, store: Store | None = None) -> Location:
        """Parse a location."""
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
        :param size: announced size; None for the right one if `source` is bytes, else unknown
        :param store: the store; None for that of the test
        :param options: other arguments of `add`
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
        """Return an iterator over an image, or a range of it, and the announced size."""
        store = store or self.store
        chunks, size = self.call(store.get, self.locate(uri, store), **bounds)
        return chunks, size

    def read(self, uri: str, store: Store | None = None, **bounds: Any) -> bytes:
        """Return the bytes of an image, or of a range of it."""
        chunks, size = self.get(uri, store, **bounds)
        data = self.call(b"".join, chunks)
        assert size == len(data), "get() announced another number of bytes than it delivered"
        return data

    def size(self, uri: str, store: Store | None = None) -> int:
        """Return the size of an image."""
        store = store or self.store
        return self.call(store.get_size, self.locate(uri, store))

    def delete(self, uri: str, store: Store | None = None) -> None:
        """Delete an image."""
        store = store or self.store
        self.call(store.delete, self.locate(uri, store))

    # -- assertions

    def check_missing(self, uri: str) -> None:
        """Fail unless `get` and `get_size` raise `NotFound`."""
        with pytest.raises(exceptions.NotFound):
            self.get(uri)
        with pytest.raises(exceptions.NotFound):
            self.size(uri)

    @contextlib.contextmanager
    def leaving_nothing(self) -> Iterator[None]:
        """Fail unless the backend holds the same after the block as before."""
        before = sorted(self.listing())
        yield
        assert sorted(self.listing()) == before, "something was left behind, or is missing"

    def check_free(self, image_id: str) -> None:
        """Fail unless an image with this id can be stored."""
        data = image(self.block_size + 3, seed=99)
        uri = self.add(image_id, data)
        assert self.read(uri) == data
        self.delete(uri)
