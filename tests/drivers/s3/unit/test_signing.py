# SPDX-License-Identifier: Apache-2.0
"""What the store changes in the requests of botocore, as far as no server shows it."""

from __future__ import annotations

from typing import Any

import pytest

from glance_store._drivers._objects.body import Body
from tests.drivers.s3.loopback import BUCKET, Recorder, close, store_at
from tests.services.http_server import Answer

pytest.importorskip("boto3")

DATA = bytes(range(256)) * 10


@pytest.mark.parametrize("options", [{}, {"s3_store_verify_parts": False}])
def test_a_body_that_is_sent_by_another_call_begins_anew(options: dict[str, Any]) -> None:
    """Such as one without the condition that a service has refused."""
    body = Body(DATA)
    with Recorder(lambda _request, _body: Answer(200, headers={"ETag": '"1"'})) as server:
        # A request without its body would be waited for, and sent again.
        images = store_at(server.url, s3_store_max_attempts=1, s3_store_read_timeout=5, **options)
        s3 = images.store._client().s3
        for _number in range(2):
            s3.put_object(Bucket=BUCKET, Key="image", Body=body)
            s3.upload_part(Bucket=BUCKET, Key="image", Body=body, UploadId="1", PartNumber=1)
        close(images)
    assert server.bodies == 4 * [DATA]


def test_checksum_of_a_body_is_that_of_its_bytes() -> None:
    body = Body(b"123456789")
    # The check value of the algorithm, 0xCBF43926.
    assert body.crc32() == "y/Q5Jg=="
    assert body.tell() == 0
