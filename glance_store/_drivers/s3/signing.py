# SPDX-License-Identifier: Apache-2.0
"""What the store changes in botocore's requests. Import it only where botocore is installed.

The hash of a body is computed once, not for each try. A request with a body does not wait for "100
Continue". Numbers that are none are dropped. A bucket may be that of another tenant. A web page is
not an object. Redirects that lead nowhere end.
"""

from __future__ import annotations

from typing import Any

import botocore.auth
import botocore.handlers

from glance_store._drivers._objects.body import RequestBody
from glance_store._drivers._objects.errors import NoResult
from glance_store.i18n import _

_PLAIN = "s3v4"
# A name of its own, so that botocore's signers stay unchanged.
_OURS = "glance-store-s3v4"
# The operations whose body holds image data.
_UPLOADS = ("PutObject", "UploadPart")
# The headers that botocore reads as numbers.
_NUMBERS = ("Content-Length", "x-amz-missing-meta", "x-amz-mp-parts-count", "x-amz-tagging-count")
# The operations for which any page would do as a response: those that read, those whose success has
# no body, and lists, which would be empty.
_READS = ("GetObject", "HeadObject")
_DELETES = ("DeleteObject", "AbortMultipartUpload")
_LISTS = ("ListObjectsV2", "ListObjects", "ListMultipartUploads", "ListParts")
_PAGES = ("text/html", "application/json")
_DOCUMENTS = ("application/xml", "text/xml")  # such as an error with the status of a success
_ERROR = 300  # the first status of a response that botocore takes for an error


class _HashedOnce(botocore.auth.S3SigV4Auth):  # type: ignore[misc]
    """The usual signature; it asks a `RequestBody` for its hash instead of reading it."""

    def payload(self, request: Any) -> str:
        """Return the hash to sign for the body of a request."""
        body = request.body
        if (
            isinstance(body, RequestBody)
            and not self._is_streaming_checksum_payload(request)
            and self._should_sha256_sign_payload(request)
        ):
            return body.sha256
        return str(super().payload(request))


def _choose_signer(signature_version: Any, **_event: Any) -> str | None:
    return _OURS if signature_version == _PLAIN else None


def _check_bucket(params: dict[str, Any], **_event: Any) -> None:
    bucket = str(params.get("Bucket", ""))
    # botocore does not know <tenant>:<bucket> of Ceph.
    params = {**params, "Bucket": bucket.partition(":")[2] or bucket}
    botocore.handlers.validate_bucket_name(params)


def _without_expect(params: dict[str, Any], **_event: Any) -> None:
    # Waiting for "100 Continue" costs a round trip for each part, and earlier requests have shown
    # that the service accepts uploads.
    params["headers"].pop("Expect", None)


def _drop_nonsense(response_dict: dict[str, Any], **_event: Any) -> None:
    # botocore would fail on a number that is none, and take a negative length for a size.
    headers = response_dict["headers"]
    for name in _NUMBERS:
        if not str(headers.get(name, "0")).isdecimal():
            del headers[name]


def _refuse_pages(operation_model: Any, response_dict: dict[str, Any], **_event: Any) -> None:
    """Raise NoResult for a page of a proxy, such as the one for the login.

    It would pass for an object, a deletion, or an empty list.
    """
    if response_dict["status_code"] >= _ERROR:
        return
    headers, body = response_dict["headers"], response_dict["body"]
    media = str(headers.get("Content-Type", "")).lower()
    page = media.startswith(_PAGES)
    if operation_model.name in _READS:
        # Every object has an ETag.
        page = media.startswith((*_PAGES, *_DOCUMENTS)) and not headers.get("ETag")
    elif operation_model.name in _DELETES:
        page = page and bool(body)
    else:
        page = page or not body.strip() or b"<html" in body.lower()
    if not page:
        return
    close = getattr(body, "close", None)
    if close is not None:
        close()
    raise NoResult(_("The response is a web page instead of an S3 response; look for a proxy"))


def _end_redirects(
    response: Any, operation: Any, request_dict: dict[str, Any], **_event: Any
) -> None:
    """Stop botocore from asking for a bucket's region when the response redirects again.

    It would ask for ever, for example a server that redirects everything.
    """
    redirect = request_dict["context"].get("s3_redirect")
    if operation.name == "HeadBucket" and response is not None and redirect is not None:
        answer = response[1]
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if not (answer.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")):
            redirect["redirected"] = True


def adapt(client: Any, payer: str = "") -> None:
    """Make these changes to a new S3 client; `payer` is the value of x-amz-request-payer."""
    botocore.auth.AUTH_TYPE_MAPS.setdefault(_OURS, _HashedOnce)
    events = client.meta.events
    for operation in _UPLOADS:
        events.register(f"choose-signer.s3.{operation}", _choose_signer)
    events.unregister("before-parameter-build.s3", botocore.handlers.validate_bucket_name)
    events.register("before-parameter-build.s3", _check_bucket)
    # Not for each operation: such handlers run before the one that adds the header.
    events.register_last("before-call.s3", _without_expect)
    events.register("before-parse.s3", _drop_nonsense)
    for operation in (*_READS, *_DELETES, *_LISTS):
        events.register(f"before-parse.s3.{operation}", _refuse_pages)
    events.register_first("needs-retry.s3", _end_redirects)
    if payer:
        events.register(
            "before-call.s3",
            lambda params, **_event: params["headers"].update({"x-amz-request-payer": payer}),
        )
