# SPDX-License-Identifier: Apache-2.0
"""Checksum, multihash and verifier see every byte once."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.transfer.digest import Digests, crc32c, get_hasher
from glance_store.transfer.upload import upload

from .memory import BLOCK, MemoryWriter, Verifier, pattern


def _usable(name: str) -> bool:
    # hashlib lists names that the OpenSSL of this machine may have switched off.
    try:
        hashlib.new(name)
    except ValueError:
        return False
    return True


AVAILABLE = sorted(filter(_usable, hashlib.algorithms_available))
FIXED = [name for name in AVAILABLE if hashlib.new(name).digest_size]
VARIABLE = [name for name in AVAILABLE if not hashlib.new(name).digest_size]


def test_the_lists_are_not_empty() -> None:
    assert {"md5", "sha1", "sha256", "sha512", "sha3_512", "blake2b"} <= set(FIXED)
    assert {"shake_128", "shake_256"} <= set(VARIABLE)


@pytest.mark.parametrize("name", FIXED)
def test_every_hash_of_fixed_length(name: str) -> None:
    data = pattern(3 * BLOCK + 5)
    result = upload(io.BytesIO(data), MemoryWriter(), Digests(name))
    assert result.multihash == hashlib.new(name, data).hexdigest()
    assert result.checksum == hashlib.md5(data).hexdigest()


@pytest.mark.parametrize(
    "name", [*VARIABLE, "nonesuch", "", "sha-512 ", "md5\0", None, 7, b"md5", []]
)
def test_what_is_no_hash_of_fixed_length(name: Any) -> None:
    with pytest.raises(exceptions.UnknownHashingAlgo) as caught:
        Digests(name)
    assert str(name) in str(caught.value)


@pytest.mark.parametrize("name", ["md5", "MD5"])
def test_md5_alone_is_computed_once(name: str) -> None:
    digests = Digests(name)
    assert len(digests.consumers) == 1
    digests.consumers[0].update(b"data")
    assert digests.checksum == digests.multihash == hashlib.md5(b"data").hexdigest()


def test_one_consumer_for_each_digest_and_the_verifier() -> None:
    verifier = Verifier()
    assert len(Digests("sha512").consumers) == 2
    consumers = Digests("sha512", verifier).consumers
    assert len(consumers) == 3
    assert consumers[2] is verifier
    assert Digests("md5", verifier).consumers[1:] == [verifier]


def test_a_verifier_that_is_falsy_is_used() -> None:
    class Falsy(Verifier):
        def __len__(self) -> int:
            return 0

    assert len(Digests("md5", Falsy()).consumers) == 2


def test_digests_of_nothing() -> None:
    digests = Digests("sha256")
    assert digests.checksum == hashlib.md5().hexdigest()
    assert digests.multihash == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("blocks", [1, 2, 30])
def test_the_verifier_sees_each_byte_once_in_order(blocks: int) -> None:
    data = pattern(blocks * BLOCK)
    verifier = Verifier()
    upload(io.BytesIO(data), MemoryWriter(concurrency=3), Digests("md5", verifier))
    assert verifier.data == data
    assert verifier.updates == blocks


@pytest.mark.parametrize("blocks", [0, 1, 5])
def test_a_verifier_may_refuse_the_image(blocks: int) -> None:
    """It is asked when all digests are there, and nothing is published then."""
    data = pattern(blocks * BLOCK)
    asked: list[tuple[int, str, str]] = []

    class Strict(Verifier):
        def approve(self, *result: Any) -> None:
            asked.append(result)
            raise ValueError("not this one")

    writer = MemoryWriter(concurrency=3)
    with pytest.raises(ValueError, match="not this one"):
        upload(io.BytesIO(data), writer, Digests("sha256", Strict()))
    md5, sha256 = hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()
    assert asked == [(len(data), md5, sha256)]
    assert writer.aborts == 1
    assert not writer.commits


def test_md5_for_checksums_is_not_for_security(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host in FIPS mode allows md5 only so."""
    uses: list[tuple[str, bool]] = []
    new = hashlib.new

    def recorded(name: str, data: bytes = b"", *, usedforsecurity: bool = True) -> Any:
        uses.append((name, usedforsecurity))
        return new(name, data, usedforsecurity=usedforsecurity)

    monkeypatch.setattr(hashlib, "new", recorded)
    Digests("sha256")
    assert ("md5", False) in uses
    assert ("md5", True) not in uses


def test_get_hasher() -> None:
    assert get_hasher("sha256").name == "sha256"
    with pytest.raises(ValueError, match="nonesuch"):
        get_hasher("nonesuch")


def test_the_fast_checksum_is_a_crc_32c() -> None:
    """The check value of the algorithm, of any buffer."""
    pytest.importorskip("awscrt.checksums", reason="awscrt is not installed")
    fast = crc32c()
    assert fast is not None
    for data in (b"123456789", bytearray(b"123456789"), memoryview(b"0123456789")[1:]):
        assert fast(data) == 0xE3069283
