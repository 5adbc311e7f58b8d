# SPDX-License-Identifier: Apache-2.0
"""The checksum, the multihash and the signature verifier of an image."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

from glance_store import exceptions

CHECKSUM = "md5"


class Updatable(Protocol):
    """What takes the bytes of an image in order: a hash object, a signature verifier."""

    def update(self, data: Any, /) -> Any:
        """Take the next bytes."""
        ...


def get_hasher(hash_algo: str, usedforsecurity: bool = True) -> Any:
    """Return a new hash object.

    :param hash_algo: a name that `hashlib.new` knows
    :param usedforsecurity: False allows md5 on a host in FIPS mode, for checksums
    :returns: a `hashlib` object
    :raises ValueError: the name is unknown
    """
    return hashlib.new(hash_algo, usedforsecurity=usedforsecurity)


class Digests:
    """The digests of one upload; each consumer sees every byte once, in order.

    :param hashing_algo: name of the multihash
    :param verifier: object with ``update(data)`` and perhaps ``approve``, see `approve`; or None
    :raises UnknownHashingAlgo: the name is unknown, or names a hash without a fixed length
    """

    def __init__(self, hashing_algo: str, verifier: Updatable | None = None) -> None:
        try:
            multihash = get_hasher(hashing_algo, usedforsecurity=False)
        except (TypeError, ValueError) as exc:
            raise exceptions.UnknownHashingAlgo(algo=hashing_algo) from exc
        if not multihash.digest_size:
            # shake_128 and its kind have no digest without a length that nobody records.
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
        """Have the verifier say whether the image may be stored, now that all of it was seen.

        ``approve(size, checksum, multihash)`` of the verifier, where there is one, does so by
        returning.

        :param size: bytes of the image
        :raises Exception: what the verifier raises to refuse it
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
        """Hexadecimal digest of the chosen hash of the bytes so far."""
        return str(self._multihash.hexdigest())
