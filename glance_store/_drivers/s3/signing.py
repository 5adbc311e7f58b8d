# SPDX-License-Identifier: Apache-2.0
"""What the store changes in the requests of botocore. Imported with botocore only.

The hash and the checksum of a body are computed once and not again for each try, a request with a
body does not wait for the service's word to go on, an object is created only where there is none, a
request is sent again when the service has had too many, and redirects that lead nowhere end.
"""

from __future__ import annotations

from typing import Any

import botocore.auth
import botocore.httpchecksum

from glance_store._drivers.s3.body import Body

_PLAIN = "s3v4"
# A name of its own beside those of botocore, whose signers stay what they are.
_OURS = "glance-store-s3v4"
# The operations with an image's bytes in their body.
_UPLOADS = ("PutObject", "UploadPart")
_CREATIONS = ("PutObject", "CompleteMultipartUpload")
_ALWAYS = "when_supported"
_CRC32 = "crc32"
_TOO_MANY_REQUESTS = 429
# A code that every release of botocore takes for overload.
_OVERLOAD = "SlowDown"
# Where the code that the service has sent is kept meanwhile, in the context of a request.
_SENT = "glance_store_error_code"


class _HashedOnce(botocore.auth.S3SigV4Auth):  # type: ignore[misc]
    """The usual signature; asks a `Body` for its hash instead of reading it."""

    def payload(self, request: Any) -> str:
        """Return what is signed for the body of a request."""
        body = request.body
        if (
            isinstance(body, Body)
            and not self._is_streaming_checksum_payload(request)
            and self._should_sha256_sign_payload(request)
        ):
            return body.sha256()
        return str(super().payload(request))


class Conditions:
    """Whether objects are created on the condition that there is none of the name.

    :ivar supported: False once the service has said that it does not know the condition
    """

    def __init__(self) -> None:
        self.supported = True

    def add(self, params: dict[str, Any], **_event: Any) -> None:
        """Put the condition into a request; a handler of botocore's event before-call."""
        if self.supported:
            # Not as a parameter: botocore knows that one since 2024 only.
            params["headers"]["If-None-Match"] = "*"


def _choose_signer(signature_version: Any, **_event: Any) -> str | None:
    return _OURS if signature_version == _PLAIN else None


def _without_expect(params: dict[str, Any], **_event: Any) -> None:
    # Waiting for "100 Continue" costs a round trip for each part. The requests before this one
    # have shown that the service takes what is sent.
    params["headers"].pop("Expect", None)


def _rewind(params: dict[str, Any], **_event: Any) -> None:
    """Begin with the first byte; a handler of the event before-parameter-build.

    A body can have been sent by another call, which has failed, and older releases of botocore
    compute a hash of what follows its position.
    """
    body = params.get("Body")
    if isinstance(body, Body):
        body.seek(0)


def _put_checksum(params: dict[str, Any], context: dict[str, Any], **_event: Any) -> None:
    """Put the checksum of a body into a header; a handler of the event before-call.

    Over TLS botocore would send it behind the body, in chunks, compute it again for each try, and
    copy every byte for that. Many services refuse such a body.
    """
    body, wanted = params["body"], context.get("checksum", {}).get("request_algorithm")
    if isinstance(body, Body) and isinstance(wanted, dict) and wanted["algorithm"] == _CRC32:
        params["headers"].setdefault(wanted["name"], body.crc32())
        # The signature says where it is.
        wanted["in"] = "header"


def _announce_checksums(params: dict[str, Any], context: dict[str, Any], **_event: Any) -> None:
    """Say which checksum the parts of an upload will have; a handler of the event before-call."""
    calculation = getattr(context["client_config"], "request_checksum_calculation", None)
    if calculation == _ALWAYS:
        # Amazon refuses parts with another one than was announced, and any if none was.
        algorithm = botocore.httpchecksum.DEFAULT_CHECKSUM_ALGORITHM
        params["headers"].setdefault("x-amz-checksum-algorithm", algorithm)


def _name_overload(response: Any, request_dict: dict[str, Any], **_event: Any) -> None:
    """Let botocore know an overload by its status: most releases look at the code alone.

    A handler of the event needs-retry that runs before all others.
    """
    if response is not None and response[0].status_code == _TOO_MANY_REQUESTS:
        error = response[1].setdefault("Error", {})
        request_dict["context"][_SENT] = error.get("Code")
        error["Code"] = _OVERLOAD


def _restore_code(response: Any, request_dict: dict[str, Any], **_event: Any) -> None:
    """Put the service's own code back when it has been decided; the handler that runs last."""
    code = request_dict["context"].pop(_SENT, None)
    if code is not None:
        response[1]["Error"]["Code"] = code


def _end_redirects(
    response: Any, operation: Any, request_dict: dict[str, Any], **_event: Any
) -> None:
    """Keep botocore from asking where a bucket is when the answer to that sends it elsewhere.

    It would ask without end, such as a server that sends everything to another address.
    """
    redirect = request_dict["context"].get("s3_redirect")
    if operation.name == "HeadBucket" and response is not None and redirect is not None:
        answer = response[1]
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if not (answer.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")):
            redirect["redirected"] = True


def adapt(client: Any) -> Conditions:
    """Change a client so that it works as described above.

    :param client: a new S3 client
    :returns: the conditions of its uploads
    """
    botocore.auth.AUTH_TYPE_MAPS.setdefault(_OURS, _HashedOnce)
    conditions = Conditions()
    events = client.meta.events
    for operation in _UPLOADS:
        events.register(f"choose-signer.s3.{operation}", _choose_signer)
        events.register(f"before-parameter-build.s3.{operation}", _rewind)
        events.register(f"before-call.s3.{operation}", _put_checksum)
    events.register("before-call.s3.CreateMultipartUpload", _announce_checksums)
    # Not for each operation: those handlers run before the one that puts the header in.
    events.register_last("before-call.s3", _without_expect)
    for operation in _CREATIONS:
        events.register(f"before-call.s3.{operation}", conditions.add)
    events.register_first("needs-retry.s3", _end_redirects)
    # Handlers of the longer name run before those of the shorter one.
    events.register_first("needs-retry.s3", _name_overload)
    events.register_last("needs-retry", _restore_code)
    return conditions
