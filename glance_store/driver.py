# SPDX-License-Identifier: Apache-2.0
"""Base of every driver.

A driver subclasses `Store`, declares its options and capabilities, and implements `open_writer`,
`open_reader` and `delete`. The engine in `glance_store.transfer` does the rest: hashing, size
checks, ranges, clean-up. A driver may instead override `add`, `get` and `get_size`, as drivers
have always done.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar, cast

from oslo_config import cfg

from glance_store import capabilities, exceptions, observers, sharing
from glance_store.i18n import _
from glance_store.inventory import Capacity, Leftover, StoredImage
from glance_store.location import Location, StoreLocation
from glance_store.store_options import (
    DEFAULT_GROUP,
    MULTI_BACKEND_OPTIONS,
    SHARED_CONF_GROUP,
    BackendGroupConfiguration,
    register_each,
)
from glance_store.transfer.digest import Digests
from glance_store.transfer.download import Download
from glance_store.transfer.interface import ImageReader, ImageWriter, Unfinished
from glance_store.transfer.shared_reads import SharedDownload, SharedReads
from glance_store.transfer.upload import fill, upload

__all__ = [
    "SHARED_CONF_GROUP",
    "BackendGroupConfiguration",
    "Store",
    "StoreWriter",
    "back_compat_add",
]

LOG = logging.getLogger(__name__)

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


class StoreWriter(ImageWriter, Protocol):
    """What `Store.open_writer` returns: an `ImageWriter` that knows the image's location."""

    @property
    def uri(self) -> str:
        """The location of the image, valid once it is committed."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """Location metadata: strings, or lists and dicts of strings."""
        ...


class UnfinishedCopy(Unfinished, Protocol):
    """A copy within the backend, begun by `Store.copy_from`."""

    @property
    def uri(self) -> str:
        """The location of the copy, valid once it is committed."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """Location metadata: strings, or lists and dicts of strings."""
        ...


def _byte_count(value: Any) -> int | None:
    """Return a number of bytes, 0 for an empty value; None if it is not a number of bytes."""
    try:
        number = int(value or 0)
        exact = isinstance(value, str) or number == (value or 0)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if exact and number >= 0 else None


def _declared_size(image_size: Any) -> int:
    size = _byte_count(image_size)
    # Neither the kernel nor any backend counts further.
    if size is None or size >= 1 << 63:
        raise exceptions.Invalid(
            _("The image size must be a number of bytes, or 0 if unknown, not %(size).80r"),
            size=image_size,
        )
    return size


def back_compat_add(store_add_fun: _F) -> _F:
    """Decorate `add` so that callers from before the multihash still work.

    A call without a hashing algorithm uses md5 and returns four values: location, size, checksum,
    metadata. Any other call returns five, with the multihash at index 3.

    :param store_add_fun: the method ``add`` of a store
    """

    @functools.wraps(store_add_fun)
    def add_adapter(*args: Any, **kwargs: Any) -> Any:
        # args[0] is the store; args[4] the algorithm, if positional.
        everything_given = len(args) + len(kwargs) >= 7
        if "hashing_algo" in kwargs or everything_given or isinstance(_item(args, 4), str):
            return store_add_fun(*args, **kwargs)
        if any("image_" in name for name in kwargs):
            result = store_add_fun(*args, hashing_algo="md5", **kwargs)
        else:
            result = store_add_fun(*args[:4], "md5", *args[4:], **kwargs)
        url, size, checksum, _multihash, metadata = result
        return url, size, checksum, metadata

    return cast("_F", add_adapter)


def _item(values: tuple[Any, ...], index: int) -> Any:
    return values[index] if index < len(values) else None


class _assignable(Generic[_T]):  # noqa: N801 - used like property
    """A property that an instance may override by assignment."""

    def __init__(self, function: Callable[[Any], _T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    # No __set__: an assigned value goes into the instance's dict, which is looked up first.
    def __get__(self, instance: Any, owner: type | None = None) -> _T:
        return self if instance is None else self._function(instance)  # type: ignore[return-value]


class Store(capabilities.StoreCapability):
    """A place to keep images.

    :param conf: the configuration
    :param backend: in multi-store mode, the identifier of the store and name of its option group;
        None in single-store mode, where the group is ``[glance_store]``
    """

    OPTIONS: list[cfg.Opt] | None = None
    MULTI_BACKEND_OPTIONS: list[cfg.Opt] = MULTI_BACKEND_OPTIONS
    READ_CHUNKSIZE: int = 4 * 1024 * 1024
    WRITE_CHUNKSIZE: int = READ_CHUNKSIZE
    # Name of the entry point that loaded it; empty if the class was called directly.
    driver_entry: str = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        observers.instrument(cls)

    def __init__(self, conf: cfg.ConfigOpts, backend: str | None = None) -> None:
        super().__init__()
        self.conf = conf
        self.backend_group = backend
        self.store_location_class: type[StoreLocation] | None = None
        self._url_prefix: str | None = None
        # Why configuration made the store read-only; shown by health checks and errors.
        self.configuration_error: str | None = None
        self._register_options()

    def _register_options(self) -> None:
        if self.backend_group is not None:
            register_each(self.conf, self.MULTI_BACKEND_OPTIONS, self.backend_group)
        if self.OPTIONS is not None:
            register_each(self.conf, self.OPTIONS, self.backend_group or DEFAULT_GROUP)
            register_each(self.conf, self.OPTIONS, SHARED_CONF_GROUP)

    # Drivers written for 5.x assign this one, `name` and `read_size`.
    @functools.cached_property
    def store_conf(self) -> Any:
        """The options of this store as attributes, with fallback to ``[backend_defaults]``."""
        if self.backend_group is None:
            return self.conf[DEFAULT_GROUP]
        return BackendGroupConfiguration(self.OPTIONS or [], self.backend_group, self.conf)

    @functools.cached_property
    def shared_reads(self) -> SharedReads | None:
        """The reads shared with other processes of this host; None if nothing is shared."""
        return sharing.of_store(self.conf, self.backend_group)

    def _is_set(self, name: str) -> bool:
        """Tell whether the operator has set an option."""
        # Not self.conf: until `store_conf` is made, options that are not set have their defaults.
        if self.backend_group and self.store_conf.backend_conf[name] is not None:
            return True
        found = self.conf.get_location(
            name, SHARED_CONF_GROUP if self.backend_group else DEFAULT_GROUP
        )
        return found is not None and found.location is not cfg.Locations.opt_default

    @_assignable
    def name(self) -> str:
        """How log lines and errors name this store: its identifier, else the driver's module."""
        return self.backend_group or type(self).__module__.rpartition("_drivers.")[2].split(".")[0]

    @property
    def weight(self) -> int:
        """Preference among several stores; 0 in single-store mode."""
        if self.backend_group is None:
            return 0
        return int(self.conf[self.backend_group].weight)

    @property
    def url_prefix(self) -> str | None:
        """Prefix of all locations of this store; None while unknown."""
        return self._url_prefix

    @_assignable
    def read_size(self) -> int:
        """Size in bytes of the chunks that `get` yields, and of a read from the backend."""
        return self.READ_CHUNKSIZE

    def get_store_location_class(self) -> type[StoreLocation]:
        """Return the class that parses the locations of this store."""
        if self.store_location_class is None:
            module = sys.modules[type(self).__module__]
            self.store_location_class = module.StoreLocation
        return self.store_location_class

    def configure(self, re_raise_bsc: bool = False) -> None:
        """Make the store ready for use. A store that cannot write becomes read-only.

        An outage does not make it read-only: it is raised, and configuration is tried again later.

        :param re_raise_bsc: also raise the error
        :raises BadStoreConfiguration: writing is impossible, and `re_raise_bsc` is set
        :raises BackendUnavailable: the backend cannot be reached
        """
        try:
            self.configure_add()
            self.configuration_error = None
        except exceptions.BadStoreConfiguration as exc:
            if isinstance(exc, exceptions.BackendUnavailable):
                raise
            self.disable_writes(str(exc.msg))
            if re_raise_bsc:
                raise
        finally:
            self.update_capabilities()

    def disable_writes(self, reason: str) -> None:
        """Make the store read-only and tell the operator.

        :param reason: what is wrong and what to do
        """
        self.unset_capabilities(capabilities.BitMasks.WRITE_ACCESS)
        self.configuration_error = reason
        LOG.warning("Store %s: images can be neither added nor deleted: %s", self.name, reason)

    def configure_add(self) -> None:
        """Check that the store can write.

        :raises BadStoreConfiguration: it cannot
        """

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes the store serves."""
        raise NotImplementedError("A driver must implement get_schemes")

    def storage_ids(self) -> set[str]:
        """Return what only this store may write to, in words an operator understands.

        Two stores that share an entry would delete each other's images, so the second one of a
        configuration is made read-only.
        """
        return set()

    def check_health(self) -> str:
        """Check that the backend is ready.

        :returns: a few words for an operator
        :raises GlanceStoreException: it is not ready; the text says why
        """
        return "ok"

    # -- optional: for the glance-store command

    def images(self) -> Iterator[StoredImage]:
        """Yield everything in the store, fetched page by page to bound memory.

        :raises UnsupportedBackend: the driver cannot list images
        """
        raise exceptions.UnsupportedBackend(f"Store {self.name} cannot list its images")

    def leftovers(self, older_than: float) -> Iterator[Leftover]:
        """Yield what interrupted uploads left behind and nobody is writing.

        :param older_than: seconds since it last changed. For a backend that cannot tell whether an
            upload is still running, this is the only proof
        :raises UnsupportedBackend: the driver cannot find leftovers
        """
        raise exceptions.UnsupportedBackend(
            f"Store {self.name} cannot find what interrupted uploads left behind"
        )

    def capacity(self) -> Capacity | None:
        """Return the backend's capacity; None if it does not tell."""
        return None

    def copy_from(
        self,
        source: Store,
        location: Location,
        image_id: str,
        progress: Callable[[int], None],
    ) -> tuple[str, int, dict[str, Any]] | None:
        """Let the backend copy an image from another store: all of it or nothing.

        Optional. The copy is begun, marked and published as in `add`, but its bytes never pass
        through this process. Decorate an override with `capabilities.check`.

        :param source: the store that has the image, of any driver
        :param location: where the image is in that store
        :param image_id: id of the copy
        :param progress: called with the number of bytes of each step; an exception ends the copy
        :returns: location, size and location metadata of the copy; None if the backend cannot copy
            this image itself, and nothing is left of the attempt
        :raises Duplicate: an image with this id exists
        :raises NotFound: there is no image at the location
        :raises StorageFull: it does not fit
        :raises StoreAddDisabled: this store is read-only
        """
        return None

    def open_writer(self, image_id: str, size: int, context: Any = None) -> StoreWriter:
        """Start storing an image.

        :param image_id: id of the image
        :param size: bytes; 0 if unknown
        :param context: the request's context, if the caller has one
        :returns: the writer, which the engine commits or aborts
        :raises Duplicate: an image with this id exists
        """
        raise NotImplementedError("A driver that stores images must implement open_writer")

    def open_reader(self, location: Location, context: Any = None) -> ImageReader:
        """Open a stored image.

        :param location: where it is
        :param context: the request's context, if the caller has one
        :returns: the reader, which the engine closes
        :raises NotFound: it is not there
        """
        raise NotImplementedError("A driver that reads images must implement open_reader")

    def open_range(
        self, location: Location, offset: int, length: int | None, context: Any = None
    ) -> ImageReader:
        """Open a stored image to read only a range of it.

        Override it only if the driver's first request must name the range.

        :param location: where it is
        :param offset: first byte that will be read
        :param length: maximum bytes that will be read; None for the rest of the image
        :param context: the request's context, if the caller has one
        :returns: the reader of the whole image, which the engine closes
        :raises NotFound: it is not there
        :raises StoreRandomGetNotSupported: this image cannot be read from there
        """
        return self.open_reader(location, context)

    @back_compat_add
    @capabilities.check
    def add(
        self,
        image_id: str,
        image_file: Any,
        image_size: int,
        hashing_algo: str,
        context: Any = None,
        verifier: Any = None,
    ) -> tuple[str, int, str, str, dict[str, Any]]:
        """Store an image: all of it or nothing.

        :param image_id: id of the image
        :param image_file: an object with ``read(n)``, or an iterable of bytes
        :param image_size: bytes; 0 if unknown
        :param hashing_algo: name of the multihash, such as ``sha512``
        :param context: the request's context
        :param verifier: object whose ``update(data)`` takes all bytes once, in order. If it has
            ``approve(size, checksum, multihash)``, that is called before anybody can see the image,
            and may raise to refuse it
        :returns: location, bytes stored, md5 and multihash in hexadecimal, location metadata;
            without the multihash if the call names no algorithm
        :raises Duplicate: an image with this id exists
        :raises Invalid: the data is not bytes, or more or fewer than `image_size`
        :raises StorageFull: it does not fit
        :raises StoreAddDisabled: the store is read-only
        """
        size = _declared_size(image_size)
        digests = Digests(hashing_algo, verifier)
        writer = self.open_writer(image_id, size, context)
        result = upload(image_file, writer, digests, size)
        LOG.debug("Store %s: added image %s, %d bytes", self.name, image_id, result.size)
        metadata = self._metadata_of(writer)
        return writer.uri, result.size, result.checksum, result.multihash, metadata

    def _metadata_of(self, writer: StoreWriter | UnfinishedCopy) -> dict[str, Any]:
        metadata = dict(writer.metadata)
        if self.backend_group is not None:
            metadata["store"] = self.backend_group
        return metadata

    def _fill(
        self, writer: UnfinishedCopy, copy: Callable[[], bool], size: int
    ) -> tuple[str, int, dict[str, Any]] | None:
        """Run a copy within the backend and return the result of `copy_from`."""
        if not fill(writer, copy, size):
            return None
        return writer.uri, size, self._metadata_of(writer)

    @capabilities.check
    def get(
        self,
        location: Location,
        offset: int = 0,
        chunk_size: int | None = None,
        context: Any = None,
    ) -> tuple[Any, int]:
        """Read an image, or a range of it.

        :param location: where it is
        :param offset: first byte to read
        :param chunk_size: length of the range; None for the rest of the image
        :param context: the request's context
        :returns: an iterator of bytes with ``close()``, and the number of bytes it yields (0 if the
            backend does not tell)
        :raises NotFound: there is no such image
        :raises Invalid: `offset` or `chunk_size` is not a number of bytes
        :raises StoreRandomGetNotSupported: the store cannot read ranges
        """
        first, length = _byte_count(offset), _byte_count(chunk_size)
        if first is None or length is None:
            raise exceptions.Invalid(
                _("Cannot read %(length).80r bytes at offset %(offset).80r of an image"),
                length=chunk_size,
                offset=offset,
            )
        # A length of 0 has always meant "to the end".
        reader = self.open_range(location, first, length or None, context)
        download: Download | SharedDownload | None = None
        if self.shared_reads is not None:
            download = self.shared_reads.download(
                reader,
                location.get_store_uri(),
                functools.partial(self.open_range, location, context=context),
                first,
                length or None,
                self.read_size,
            )
        if download is None:
            download = Download(reader, first, length or None, self.read_size)
        return download, download.length or 0

    def get_size(self, location: Location, context: Any = None) -> int:
        """Return the size of an image in bytes.

        :param location: where it is
        :param context: the request's context
        :returns: bytes; 0 if the backend does not tell
        :raises NotFound: there is no such image
        """
        reader = self.open_reader(location, context)
        try:
            return reader.size or 0
        finally:
            reader.close()

    @capabilities.check
    def delete(self, location: Location, context: Any = None) -> None:
        """Delete an image.

        :param location: where it is
        :param context: the request's context
        :raises NotFound: there is no such image
        :raises Forbidden: the backend refuses
        :raises InUseByStore: the image is in use
        :raises HasSnapshot: the image has snapshots
        :raises StoreDeleteNotSupported: the store is read-only
        """
        raise NotImplementedError("A driver that stores images must implement delete")

    def set_acls(
        self,
        location: Location,
        public: bool = False,
        read_tenants: list[str] | None = None,
        write_tenants: list[str] | None = None,
        context: Any = None,
    ) -> None:
        """Set the access control lists of an image.

        :param location: where it is
        :param public: whether everybody may read
        :param read_tenants: projects that may read
        :param write_tenants: projects that may write
        :param context: the request's context
        """
        raise NotImplementedError("This store has no access control lists")


# Its own methods; __init_subclass__ instruments those of subclasses.
observers.instrument(Store)
