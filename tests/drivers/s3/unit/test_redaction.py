# SPDX-License-Identifier: Apache-2.0
"""No credentials in what the client library logs."""

from __future__ import annotations

import logging
import sys

import pytest

from glance_store._drivers.s3.redaction import Redaction

# As botocore 1.29 to 1.44 writes them: dicts, JSON in the repr of bytes, XML, headers, addresses.
LINES = [
    "Model(name=AssumeRoleWithWebIdentity) with params: {'WebIdentityToken': 'canary.a-b'}",
    "with params: {'headers': {'x-amz-sso_bearer_token': 'canary', 'User-Agent': 'Boto3'}}",
    "headers={'x-amz-sso_bearer_token': b'canary/+=', 'User-Agent': b'Boto3'}",
    '\'body\': b\'{"clientId": "id", "clientSecret": "canary", "refreshToken": "canary"}\'',
    'Response body:\nb\'{"accessToken":"canary","expiresIn":28800,"idToken":"canary"}\'',
    'b\'{"accessKeyId":"canary","secretAccessKey":"canary","sessionToken":"canary"}\'',
    "<AccessKeyId>canary</AccessKeyId><SecretAccessKey>canary</SecretAccessKey>",
    "<SessionToken>canary\nmore</SessionToken></Credentials>",
    "x-amz-security-token:canary/+=\n\nhost;x-amz-security-token",
    "{'X-Amz-Security-Token': b'canary'}",
    "{'x-aws-ec2-metadata-token': 'canary'}",
    "('x-aws-ec2-metadata-token', 'canary')",
    "x-amz-sso_bearer_token: canary",
    "Action=AssumeRoleWithWebIdentity&WebIdentityToken=canary&Version=2011-06-15",
    "http://127.0.0.1/b/k?X-Amz-Security-Token=canary&X-Amz-Expires=1",
    "{'Authorization': 'Bearer canary', 'Accept': '*'}",
    "Authorization: Bearer canary\r\n",
    "Credential=canary/20260101/us-east-1/s3/aws4_request, SignedHeaders=host",
    "{'SessionToken': \"canary'canary\", 'Other': 1}",
    "LocationParseError: Failed to parse: 'user:canary' is not a valid host or port",
    "{'TokenCode': '123', 'client_secret': 'canary', 'Password': 'canary'}",
]


@pytest.mark.parametrize("line", LINES)
def test_secrets_are_hidden(line: str) -> None:
    clean = Redaction().scrub(line)
    assert "canary" not in clean
    assert "***" in clean
    # What is no secret stays, such as the names.
    for word in ("AssumeRole", "User-Agent", "expiresIn", "SignedHeaders=host", "X-Amz-Expires=1"):
        assert (word in clean) == (word in line)


@pytest.mark.parametrize(
    "line",
    [
        "Looking for credentials via: container-role",
        "{'Bucket': 'images', 'Key': 'canary', 'IfMatch': '\"1\"'}",
        "{'Token': None, 'StatusCode': 200}",
        'http://127.0.0.1:1 "GET /images/canary?uploadId=2~x HTTP/1.1" 206 4',
        "<Code>InvalidToken</Code><Message>The token is not valid</Message>",
        "SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=0123",
        "the token of the bearer",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert Redaction().scrub(line) == line


def test_secrets_that_are_known_are_hidden_anywhere() -> None:
    redaction = Redaction()
    redaction.hide("canary", "canary-longer", None, "", "abc")
    assert redaction.scrub("a canary-longer canary abc") == "a *** *** abc"


def test_records_of_the_library_are_cleaned(caplog: pytest.LogCaptureFixture) -> None:
    redaction = Redaction()
    logger = logging.getLogger("botocore.tests-of-redaction")
    redaction.watch()
    caplog.set_level(logging.DEBUG, "botocore")
    try:
        logger.debug("with params: %s", {"WebIdentityToken": "canary"})
        logger.debug("nothing to hide: %s", 1)
    finally:
        for name in list(logging.root.manager.loggerDict):
            logging.getLogger(name).removeFilter(redaction)
    assert caplog.messages == ["with params: {'WebIdentityToken': '***'}", "nothing to hide: 1"]


@pytest.mark.parametrize("secret", ["Password=canary", "nothing"])
def test_tracebacks_are_cleaned(secret: str) -> None:
    """The client library logs those of failed requests and of programs with credentials."""
    try:
        raise ValueError(secret)
    except ValueError:
        record = logging.LogRecord("botocore", 10, "", 1, "failed", (), sys.exc_info())
    assert Redaction().filter(record)
    text = logging.Formatter().format(record)
    assert "ValueError" in text
    assert "canary" not in text
    # What has no secret stays an exception.
    assert (record.exc_info is None) == (secret != "nothing")


def test_a_record_that_cannot_be_written_passes() -> None:
    record = logging.LogRecord("botocore", logging.DEBUG, "", 1, "%d %d", ("x",), None)
    assert Redaction().filter(record)
    assert record.args == ("x",)
