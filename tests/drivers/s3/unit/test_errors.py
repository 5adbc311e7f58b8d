# SPDX-License-Identifier: Apache-2.0
"""Errors of boto3 as exceptions of the library, and no secret in any text."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers._objects.body import RequestBody
from glance_store._drivers._objects.errors import DamagedInTransit, NameTaken, is_refusal
from glance_store._drivers.s3.errors import answer_of, guarded, translate
from glance_store._drivers.s3.redaction import REDACTION, Redaction
from glance_store.transfer.retry import Patience

botocore_exceptions = pytest.importorskip("botocore.exceptions")


def client_error(code: str, status: int, message: str = "words", **more: Any) -> Exception:
    answer = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, **more},
    }
    error: Exception = botocore_exceptions.ClientError(answer, "GetObject")
    return error


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, exceptions.Forbidden),
        ("SignatureDoesNotMatch", 403, exceptions.Forbidden),
        ("NoSuchKey", 404, exceptions.NotFound),
        ("404", 404, exceptions.NotFound),
        ("OperationAborted", 409, exceptions.BackendUnavailable),
        ("ConditionalRequestConflict", 409, exceptions.BackendUnavailable),
        ("BucketAlreadyExists", 409, exceptions.BackendException),
        ("PreconditionFailed", 412, NameTaken),
        ("InvalidRange", 416, exceptions.TruncatedImage),
        ("TooManyRequests", 429, exceptions.BackendUnavailable),
        ("SlowDown", 503, exceptions.BackendUnavailable),
        ("InternalError", 200, exceptions.BackendUnavailable),
        ("520", 520, exceptions.BackendUnavailable),
        ("NotImplemented", 501, exceptions.BackendException),
        ("EntityTooLarge", 400, exceptions.StorageFull),
        ("QuotaExceeded", 403, exceptions.StorageFull),
        ("SlowDown", 403, exceptions.BackendUnavailable),
        ("BadDigest", 400, DamagedInTransit),
        ("XAmzContentSHA256Mismatch", 400, DamagedInTransit),
        ("PermanentRedirect", 301, exceptions.BackendException),
        ("Unheard", 418, exceptions.BackendException),
    ],
)
def test_answers(code: str, status: int, expected: type[Exception]) -> None:
    error = translate(client_error(code, status), "Reading b/k", "b/k")
    assert type(error) is expected
    assert f"{status}" in str(error)
    assert "words" in str(error)


def test_r219_redirect_names_the_region() -> None:
    headers = {"x-amz-bucket-region": "eu-west-7"}
    error = translate(client_error("301", 301, HTTPHeaders=headers), "Reading b/k", "b/k")
    assert isinstance(error, exceptions.BackendException)
    assert "eu-west-7" in str(error)
    assert "s3_store_region_name" in str(error)


def test_r219_head_without_a_reason_names_the_region() -> None:
    """The answer to HEAD has no body: that the region is wrong is in its headers alone."""
    headers = {"x-amz-bucket-region": "eu-west-7"}
    error = translate(client_error("400", 400, "Bad Request", HTTPHeaders=headers), "Looking")
    assert type(error) is exceptions.BackendException
    assert "eu-west-7" in str(error)
    assert "s3_store_region_name" in str(error)


def test_head_without_any_reason_names_the_usual_one() -> None:
    """Some services, such as Garage, do not even name the region in the headers."""
    error = translate(client_error("400", 400, "Bad Request"), "Looking")
    assert type(error) is exceptions.BackendException
    assert "s3_store_region_name" in str(error)
    other = translate(client_error("InvalidArgument", 400), "Looking")
    assert "s3_store_region_name" not in str(other)


def test_what_only_the_store_knows_is_known_to_callers_by_its_base() -> None:
    assert issubclass(NameTaken, exceptions.BackendException)
    assert issubclass(DamagedInTransit, exceptions.BackendException)


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (client_error("AccessDenied", 403), True),
        (client_error("PreconditionFailed", 412), True),
        # Another request of that name is under way: perhaps this one's, sent before.
        (client_error("OperationAborted", 409), False),
        # A proxy has waited for too long.
        (client_error("RequestTimeout", 408), False),
        (client_error("InternalError", 500), False),
        (client_error("InternalError", 200), False),
        (botocore_exceptions.ReadTimeoutError(endpoint_url="http://x"), False),
    ],
)
@pytest.mark.parametrize("image", ["b/k", None])
def test_what_is_certain_after_an_error(error: Exception, refusal: bool, image: str | None) -> None:
    translated = translate(error, "Storing b/k", image)
    assert translated is not None
    assert is_refusal(translated) is refusal
    answer = answer_of(translated)
    if isinstance(error, botocore_exceptions.ClientError):
        assert answer is not None
        assert answer.code == error.response["Error"]["Code"]
    else:
        assert answer is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            botocore_exceptions.EndpointConnectionError(endpoint_url="http://u:p@x"),
            exceptions.BackendUnavailable,
        ),
        (
            botocore_exceptions.ReadTimeoutError(endpoint_url="http://u:p@x"),
            exceptions.BackendUnavailable,
        ),
        (
            botocore_exceptions.SSLError(endpoint_url="http://u:p@x", error=OSError(1, "no")),
            exceptions.BackendUnavailable,
        ),
        (botocore_exceptions.NoCredentialsError(), exceptions.BadStoreConfiguration),
        (ConnectionResetError(104, "reset"), exceptions.BackendUnavailable),
        (botocore_exceptions.ParamValidationError(report="x"), exceptions.BackendException),
    ],
)
def test_errors_of_the_library(error: Exception, expected: type[Exception]) -> None:
    translated = translate(error, "Reading b/k", "b/k")
    assert type(translated) is expected
    assert "u:p" not in str(translated)


def test_what_is_no_error_of_the_backend_passes() -> None:
    def fail() -> None:
        raise KeyError("a mistake in the program")

    with pytest.raises(KeyError):
        guarded(fail, "Reading")


def test_r205_originals_are_not_chained() -> None:
    def fail() -> None:
        raise client_error("AccessDenied", 403)

    with pytest.raises(exceptions.Forbidden) as caught:
        guarded(fail, "Reading")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_r205_message_of_the_service_shows_no_secret() -> None:
    REDACTION.hide("very-secret-key")
    error = translate(client_error("Odd", 400, "key very-secret-key is bad"), "Reading")
    assert "very-secret-key" not in str(error)
    assert "key *** is bad" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "{'Authorization': b'AWS4-HMAC-SHA256 Credential=canary/2026/s3/aws4_request'}",
        "x-amz-security-token:canary\nx-amz-date:2026",
        "{'X-Amz-Security-Token': b'canary', 'other': 1}",
        "<AWSAccessKeyId>canary</AWSAccessKeyId>",
        "<Credentials><SessionToken>canary</SessionToken></Credentials>",
        '{"SecretAccessKey" : "canary", "Token": "canary"}',
    ],
)
def test_r205_log_lines_of_the_client_library(text: str) -> None:
    record = logging.LogRecord("botocore.x", logging.DEBUG, "f", 1, "Sent: %s", (text,), None)
    assert Redaction().filter(record)
    assert "canary" not in record.getMessage()
    assert "***" in record.getMessage()


def test_log_line_that_cannot_be_formatted_is_left_alone() -> None:
    record = logging.LogRecord("botocore.x", logging.DEBUG, "f", 1, "%d", ("x",), None)
    assert Redaction().filter(record)


def test_body_is_a_file_without_copies() -> None:
    data = bytes(range(256)) * 4096
    body = RequestBody(memoryview(data), Patience(0))
    assert len(body) == len(data)
    first = body.read(16384)
    assert isinstance(first, memoryview)
    assert first.obj is data
    pieces = [bytes(first)]
    while piece := body.read(16384):
        pieces.append(bytes(piece))
    assert b"".join(pieces) == data
    assert body.seek(0) == 0
    assert bytes(body.read()) == data
    assert body.seek(-1, 2) == len(data) - 1
    assert body.tell() == len(data) - 1
    assert body.seek(1, 1) == len(data)
    assert body.read(1) == b""
    assert "Body of" in repr(body)
