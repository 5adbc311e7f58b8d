# SPDX-License-Identifier: Apache-2.0
"""What the store changes in the requests of botocore. Imported with botocore only.

Three things: the hash of a body is computed once and not again for each try, a request with a body
does not wait for the service's word to go on, and an object is created only where there is none.
"""

from __future__ import annotations

from typing import Any

import botocore.auth

from glance_store._drivers.s3.body import Body

_PLAIN = "s3v4"
# A name of its own beside those of botocore, whose signers stay what they are.
_OURS = "glance-store-s3v4"
# The operations with an image's bytes in their body.
_UPLOADS = ("PutObject", "UploadPart")
_CREATIONS = ("PutObject", "CompleteMultipartUpload")


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
    # Not for each operation: those handlers run before the one that puts the header in.
    events.register_last("before-call.s3", _without_expect)
    for operation in _CREATIONS:
        events.register(f"before-call.s3.{operation}", conditions.add)
    return conditions
