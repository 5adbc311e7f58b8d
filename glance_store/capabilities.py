# SPDX-License-Identifier: Apache-2.0
"""What a store can do, as a bit mask, and the decorator that checks it."""

from __future__ import annotations

import enum
import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

from glance_store import exceptions
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

_F = TypeVar("_F", bound=Callable[..., Any])


class BitMasks(enum.IntEnum):
    """Capabilities; each contains the bits of those it depends on."""

    NONE = 0b00000000
    ALL = 0b11111111
    READ_ACCESS = 0b00000001
    READ_OFFSET = 0b00000011
    READ_CHUNK = 0b00000101
    READ_RANDOM = 0b00000111
    WRITE_ACCESS = 0b00001000
    WRITE_OFFSET = 0b00011000
    WRITE_CHUNK = 0b00101000
    WRITE_RANDOM = 0b00111000
    RW_ACCESS = 0b00001001
    RW_OFFSET = 0b00011011
    RW_CHUNK = 0b00101101
    RW_RANDOM = 0b00111111
    DRIVER_REUSABLE = 0b01000000


# Offset and chunk bits mean nothing without their access bit.
_CASCADES = (
    (BitMasks.READ_ACCESS, BitMasks.READ_RANDOM),
    (BitMasks.WRITE_ACCESS, BitMasks.WRITE_RANDOM),
)


class StoreCapability:
    """Base of every store: holds its current capabilities."""

    _CAPABILITIES: int

    def __init__(self) -> None:
        self._capabilities = int(getattr(type(self), "_CAPABILITIES", 0))

    @property
    def capabilities(self) -> int:
        """The current capabilities as a bit mask."""
        return self._capabilities

    @staticmethod
    def contains(x: int, y: int) -> bool:
        """Tell whether mask `x` has all bits of mask `y`."""
        return x & y == y

    def update_capabilities(self) -> None:
        """Adapt the capabilities to the backend. Called after `configure`; must not raise."""

    def is_capable(self, *capabilities: int) -> bool:
        """Tell whether the store has all of `capabilities`.

        :param capabilities: values of `BitMasks`
        """
        return self.contains(self._capabilities, _union(capabilities))

    def set_capabilities(self, *dynamic_capabilities: int) -> None:
        """Add capabilities.

        :param dynamic_capabilities: values of `BitMasks`
        """
        self._capabilities |= _union(dynamic_capabilities)

    def unset_capabilities(self, *dynamic_capabilities: int) -> None:
        """Remove capabilities, and those that depend on them.

        :param dynamic_capabilities: values of `BitMasks`
        """
        capabilities = self._capabilities & ~_union(dynamic_capabilities)
        for access, widest in _CASCADES:
            if not capabilities & access:
                capabilities &= ~widest
        self._capabilities = capabilities


def _union(masks: tuple[int, ...]) -> int:
    union = 0
    for mask in masks:
        union |= int(mask)
    return union


def _check_get(store: StoreCapability, offset: Any, chunk_size: Any) -> None:
    needed = [BitMasks.READ_ACCESS]
    if offset:
        needed.append(BitMasks.READ_OFFSET)
    if chunk_size:
        needed.append(BitMasks.READ_CHUNK)
    if store.is_capable(*needed):
        return
    if offset or chunk_size:
        raise exceptions.StoreRandomGetNotSupported(offset=offset, chunk_size=chunk_size)
    reason = getattr(store, "configuration_error", None)
    raise exceptions.StoreGetNotSupported(
        _("Store %(name)s cannot read images: %(reason)s"),
        name=_name(store),
        reason=reason or _("its driver does not support it"),
    )


def _name(store: StoreCapability) -> str:
    return str(getattr(store, "name", type(store).__name__))


def _read_only_reason(store: StoreCapability) -> str:
    reason = getattr(store, "configuration_error", None)
    if reason is None:
        text = _("Store %(name)s is read-only: images can be neither added nor deleted")
    else:
        text = _("Store %(name)s cannot add or delete images: %(reason)s")
    return str(text % {"name": _name(store), "reason": reason})


def check(store_op_fun: _F) -> _F:
    """Decorate an operation of a store: refuse what the store is not capable of.

    `get` needs READ_ACCESS, with an offset READ_OFFSET, with a chunk size READ_CHUNK. `add`,
    `copy_from` and `delete` need WRITE_ACCESS. Arguments may be positional or keywords. A function
    of any other name is not checked; the log says so.

    :param store_op_fun: the method; its name decides what is checked
    :returns: the checked method; it raises StoreGetNotSupported, StoreRandomGetNotSupported,
        StoreAddDisabled or StoreDeleteNotSupported
    """
    name = store_op_fun.__name__
    parameters = list(inspect.signature(store_op_fun).parameters)

    def argument(key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if key in kwargs:
            return kwargs[key]
        # `parameters` includes self, `args` does not.
        position = parameters.index(key) - 1 if key in parameters else len(args)
        return args[position] if position < len(args) else None

    @functools.wraps(store_op_fun)
    def op_checker(store: StoreCapability, *args: Any, **kwargs: Any) -> Any:
        if name == "get":
            _check_get(
                store, argument("offset", args, kwargs), argument("chunk_size", args, kwargs)
            )
        elif name in ("add", "copy_from"):
            if not store.is_capable(BitMasks.WRITE_ACCESS):
                raise exceptions.StoreAddDisabled(_read_only_reason(store))
        elif name == "delete":
            if not store.is_capable(BitMasks.WRITE_ACCESS):
                raise exceptions.StoreDeleteNotSupported(_read_only_reason(store))
        else:
            LOG.warning("Capabilities are not checked for the store operation %s", name)
        return store_op_fun(store, *args, **kwargs)

    return cast("_F", op_checker)
