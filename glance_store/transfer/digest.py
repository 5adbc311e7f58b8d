# SPDX-License-Identifier: Apache-2.0
"""The checksum, the multihash and the signature verifier of an image."""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable
from typing import Any, Protocol

from glance_store import exceptions

CHECKSUM = "md5"


class Updatable(Protocol):
    """A consumer of all bytes of an image in order: a hash object or a signature verifier."""

    def update(self, data: Any, /) -> Any:
        """Process the next bytes."""
        ...


def get_hasher(hash_algo: str, usedforsecurity: bool = True) -> Any:
    """Return a new hash object.

    :param hash_algo: a name known to `hashlib.new`
    :param usedforsecurity: False to allow md5 checksums on a host in FIPS mode
    :returns: a `hashlib` object
    :raises ValueError: the name is unknown
    """
    return hashlib.new(hash_algo, usedforsecurity=usedforsecurity)


@functools.lru_cache(maxsize=1)
def crc32c() -> Callable[[Any], int] | None:
    """Return a fast function that computes the CRC-32C of bytes; None without awscrt.

    It takes a seventh of the time that `zlib.crc32` takes for a CRC-32.
    """
    try:
        checksums = importlib.import_module("awscrt.checksums")
    except ImportError:
        return None
    return lambda data: int(checksums.crc32c(data))


class Digests:
    """The digests of one upload. Each consumer gets every byte once, in order.

    :param hashing_algo: name of the multihash
    :param verifier: object with ``update(data)`` and optionally ``approve``, see `approve`; or None
    :raises UnknownHashingAlgo: the name is unknown, or its hash has no fixed length
    """

    def __init__(self, hashing_algo: str, verifier: Updatable | None = None) -> None:
        try:
            multihash = get_hasher(hashing_algo, usedforsecurity=False)
        except (TypeError, ValueError) as exc:
            raise exceptions.UnknownHashingAlgo(algo=hashing_algo) from exc
        if not multihash.digest_size:
            # shake_128 and shake_256 need a length, which nobody records.
            raise exceptions.UnknownHashingAlgo(algo=hashing_algo)
        self._multihash = multihash
        self._checksum = (
            multihash if multihash.name == CHECKSUM else get_hasher(CHECKSUM, usedforsecurity=False)
        )
        self.consumers: list[Updatable] = [self._checksum]
        if self._multihash is not self._checksum:
            self.consumers.append(self._multihash)
        self._verifier = verifier
        if verifier is not None:
            self.consumers.append(verifier)

    def approve(self, size: int) -> None:
        """Let the verifier refuse the image once it has seen all of it.

        Calls ``approve(size, checksum, multihash)`` of the verifier, if it has that method.

        :param size: bytes of the image
        :raises Exception: what the verifier raises to refuse the image
        """
        approve = getattr(self._verifier, "approve", None)
        if callable(approve):
            approve(size, self.checksum, self.multihash)

    @property
    def checksum(self) -> str:
        """Hexadecimal md5 of the bytes so far."""
        return str(self._checksum.hexdigest())

    @property
    def multihash(self) -> str:
        """Hexadecimal multihash of the bytes so far."""
        return str(self._multihash.hexdigest())
