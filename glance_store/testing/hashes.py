# SPDX-License-Identifier: Apache-2.0
"""The checksum, the multihash and the verifier."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.testing.inputs import SourceError, Verifier, check_bytes, image
from glance_store.testing.kit import WRITE, Kit, needs, touches

# Those of every Python, except shake_128 and shake_256, whose digests have no fixed length.
ALGORITHMS = sorted(
    name
    for name in hashlib.algorithms_guaranteed
    if hashlib.new(name, usedforsecurity=False).digest_size
)


@touches()
class Hashes(Kit):
    """Digests and verification of the stored bytes."""

    @needs(WRITE)
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_hash(self, algorithm: str) -> None:
        """`add` returns size, md5 and multihash of what it stored."""
        data = image(2 * self.block_size + 17)
        result = self.call(self.store.add, self.new_id(), io.BytesIO(data), len(data), algorithm)
        uri, size, checksum, multihash, metadata = result
        assert size == len(data)
        assert checksum == hashlib.md5(data, usedforsecurity=False).hexdigest()
        assert multihash == hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
        assert isinstance(metadata, dict)
        check_bytes(self.read(uri), data)

    @needs(WRITE)
    @pytest.mark.parametrize("size", [0, 1], ids=["nothing", "one-byte"])
    def test_hash_of_a_tiny_image(self, size: int) -> None:
        """`add` returns the right digests for an image of one byte or none."""
        data = image(size)
        result = self.call(self.store.add, self.new_id(), io.BytesIO(data), 0, "sha512")
        assert result[1:4] == (
            size,
            hashlib.md5(data, usedforsecurity=False).hexdigest(),
            hashlib.sha512(data).hexdigest(),
        )

    @needs(WRITE)
    def test_call_without_a_hash(self) -> None:
        """A call without a hashing algorithm returns no multihash."""
        data = image(self.block_size)
        add: Callable[..., tuple[Any, ...]] = self.store.add
        result = self.call(add, self.new_id(), io.BytesIO(data), len(data))
        if len(result) == 5:
            pytest.skip("the driver's add() is not decorated with back_compat_add")
        uri, size, checksum, _metadata = result
        expected = hashlib.md5(data, usedforsecurity=False).hexdigest()
        assert (size, checksum) == (len(data), expected)
        check_bytes(self.read(uri), data)

    @needs(WRITE)
    @pytest.mark.parametrize("algorithm", ["nonsense", "shake_128"])
    def test_unknown_hash(self, algorithm: str) -> None:
        """An unknown hashing algorithm is refused before anything is stored."""
        image_id = self.new_id()
        with self.leaving_nothing(), pytest.raises(exceptions.UnknownHashingAlgo):
            self.add(image_id, image(self.block_size), hashing_algo=algorithm)
        self.check_free(image_id)

    @needs(WRITE)
    @pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
    def test_verifier(self, known: bool) -> None:
        """A verifier gets all bytes once, in order."""
        data = image(5 * self.block_size + 17)
        verifier = Verifier()
        uri = self.add(self.new_id(), data, len(data) if known else 0, verifier=verifier)
        check_bytes(bytes(verifier.data), data)
        check_bytes(self.read(uri), data)

    @needs(WRITE)
    def test_verifier_that_raises(self) -> None:
        """What a verifier raises reaches the caller; nothing is stored."""
        image_id = self.new_id()
        verifier = Verifier(fail_at=2 * self.block_size)
        with self.leaving_nothing(), pytest.raises(SourceError, match="out of order"):
            self.add(image_id, image(5 * self.block_size), verifier=verifier)
        self.check_free(image_id)

    @touches("layout")
    @needs(WRITE)
    @pytest.mark.parametrize("known", [True, False], ids=["known-size", "unknown-size"])
    def test_verifier_that_refuses(self, known: bool) -> None:
        """An image that its verifier refuses at the end is not stored."""
        image_id = self.new_id()
        data = image(2 * self.block_size + 5)
        with (
            self.leaving_nothing(),
            pytest.raises(SourceError, match=f"refuses {len(data)} bytes"),
        ):
            self.add(image_id, data, len(data) if known else 0, verifier=Verifier(refuse=True))
        self.check_free(image_id)
