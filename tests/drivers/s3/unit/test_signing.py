# SPDX-License-Identifier: Apache-2.0
"""What the store changes in the requests of botocore, as far as no server shows it."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store._drivers._objects import body as module
from glance_store._drivers._objects.body import RequestBody
from glance_store.transfer import digest
from glance_store.transfer.retry import Patience
from tests.services.http_server import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.s3.conftest import Images
    from tests.drivers.s3.objects import Objects

pytest.importorskip("boto3")

DATA = bytes(range(256)) * 10


@pytest.mark.parametrize("header", ["if-none-match", f"x-amz-checksum-{module.crc_name().lower()}"])
def test_a_body_that_is_sent_by_another_call_begins_anew(
    tls_objects: tuple[Objects, Callable[..., Images]], header: str
) -> None:
    """Such as one without the condition, or the checksum, that a service has refused."""
    service, at = tls_objects
    service.quirk = lambda call: Answer(501) if header in call.headers else None
    # A request without its body would be waited for, and sent again.
    images = at(s3_store_retry_timeout=0, s3_store_read_timeout=5)
    images.add("whole", DATA)
    bodies = [call.body for call in service.asked("PutObject")]
    assert len(bodies) > 1
    assert set(bodies) == {DATA}


# The check values of the algorithms, 0xCBF43926 and 0xE3069283.
CHECKED = {"CRC32": "y/Q5Jg==", "CRC32C": "4waSgw=="}


def crc32c(data: memoryview) -> int:
    """Compute it as awscrt does, which not every host has."""
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder ^= byte
        for _bit in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


@pytest.mark.parametrize("name", CHECKED)
def test_checksum_of_a_body_is_that_of_its_bytes(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    awscrt = types.SimpleNamespace(crc32c=crc32c) if name == "CRC32C" else None
    monkeypatch.setitem(sys.modules, "awscrt", awscrt)
    monkeypatch.setitem(sys.modules, "awscrt.checksums", awscrt)
    digest.crc32c.cache_clear()
    try:
        body = RequestBody(b"123456789", Patience(0))
        assert module.crc_name() == name
        assert body.crc == (name, CHECKED[name])
        assert body.tell() == 0
    finally:
        digest.crc32c.cache_clear()


def test_a_body_is_given_up_with_its_upload() -> None:
    """Nobody waits for what is still being sent when the upload has failed."""
    patience = Patience(0)
    body = RequestBody(DATA, patience)
    assert body.read(10)
    patience.stop()
    with pytest.raises(exceptions.BackendException, match="interrupted"):
        body.read(10)
