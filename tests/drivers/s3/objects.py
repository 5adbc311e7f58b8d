# SPDX-License-Identifier: Apache-2.0
"""A service in memory, of which a test changes single answers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import threading
import urllib.parse
from typing import TYPE_CHECKING

from tests.drivers.s3.loopback import BUCKET, Recorder
from tests.services.http_server import Answer, File, Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    # Returns the answer to a request in the place of the service, or None to let it answer.
    Quirk = Callable[["Call"], Answer | None]

_BARE = {
    ("HEAD", False): "HeadBucket",
    ("HEAD", True): "HeadObject",
    ("GET", True): "GetObject",
    ("GET", False): "ListObjectsV2",
    ("PUT", True): "PutObject",
    ("PUT", False): "CreateBucket",
    ("DELETE", True): "DeleteObject",
}
_OF_UPLOADS = {
    "PUT": "UploadPart",
    "POST": "CompleteMultipartUpload",
    "DELETE": "AbortMultipartUpload",
    "GET": "ListParts",
}


@dataclasses.dataclass(frozen=True)
class Call:
    """A request, and what it asks for."""

    operation: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes

    @classmethod
    def of(cls, request: Request, body: bytes) -> Call:
        """Read a request."""
        url = urllib.parse.urlsplit(request.target)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        # A tenant may stand before the bucket.
        key = url.path.partition(BUCKET)[2].lstrip("/")
        if "uploads" in query:
            creates = request.method == "POST"
            operation = "CreateMultipartUpload" if creates else "ListMultipartUploads"
        elif "uploadId" in query:
            operation = _OF_UPLOADS[request.method]
        else:
            operation = _BARE[request.method, bool(key)]
        return cls(operation, key, query, request.headers, body)


@dataclasses.dataclass
class Stored:
    """An object."""

    content: bytes
    metadata: dict[str, str]  # headers

    @functools.cached_property
    def etag(self) -> str:
        """Its ETag, with quotes."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


@dataclasses.dataclass
class Unfinished:
    """A multipart upload."""

    key: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = dataclasses.field(default_factory=dict)


class Objects:
    """The service; use it as a context manager.

    :param quirk: is asked first for the answer to each request
    :param tls: context for https; None for http
    """

    def __init__(self, quirk: Quirk | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.quirk = quirk
        self.server = Recorder(self._answer, tls)
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Unfinished] = {}
        self.calls: list[Call] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def __enter__(self) -> Objects:  # noqa: PYI034 - typing.Self came with Python 3.11
        self.server.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.__exit__(*exception)

    @property
    def url(self) -> str:
        """Its address."""
        return self.server.url

    def uri(self, key: str) -> str:
        """Return the location of an object."""
        return f"s3://{self.url.partition('//')[2]}/{BUCKET}/{key}"

    def asked(self, operation: str) -> list[Call]:
        """Return the requests for an operation so far."""
        return [call for call in list(self.calls) if call.operation == operation]

    def put(self, key: str, content: bytes, metadata: dict[str, str] | None = None) -> Stored:
        """Store an object, as another process may do."""
        self.objects[key] = Stored(content, metadata or {})
        return self.objects[key]

    def _answer(self, request: Request, body: bytes) -> Answer:
        call = Call.of(request, body)
        with self._lock:
            self.calls.append(call)
        changed = self.quirk(call) if self.quirk is not None else None
        return changed if changed is not None else self.usual(call)

    def usual(self, call: Call) -> Answer:
        """Return what a service answers."""
        with self._lock:
            answer: Answer = getattr(self, f"_{call.operation}")(call)
        return answer

    def _HeadBucket(self, call: Call) -> Answer:  # noqa: N802 - that of the operation
        return Answer(200)

    def _CreateBucket(self, call: Call) -> Answer:  # noqa: N802
        return Answer(200)

    def _HeadObject(self, call: Call) -> Answer:  # noqa: N802
        found = self.objects.get(call.key)
        if found is None:
            return Answer(404)
        headers = {**found.metadata, "ETag": found.etag}
        return Answer(200, b"", {**headers, "Content-Length": str(len(found.content))})

    def _ListObjectsV2(self, call: Call) -> Answer:  # noqa: N802
        return listing(*self.objects)

    def _GetObject(self, call: Call) -> Answer:  # noqa: N802
        found = self.objects.get(call.key)
        if found is None:
            return refusal(404, "NoSuchKey")
        if call.headers.get("if-match") not in (None, found.etag):
            return refusal(412, "PreconditionFailed")
        file = File(found.content, etag=found.etag, headers=found.metadata)
        return file(Request("GET", "", call.headers))

    def _DeleteObject(self, call: Call) -> Answer:  # noqa: N802
        self.objects.pop(call.key, None)
        return Answer(204)

    def _PutObject(self, call: Call) -> Answer:  # noqa: N802
        if "if-none-match" in call.headers and call.key in self.objects:
            return refusal(412, "PreconditionFailed")
        return Answer(200, headers={"ETag": self.put(call.key, call.body, metadata(call)).etag})

    def _CreateMultipartUpload(self, call: Call) -> Answer:  # noqa: N802
        number = f"upload-{next(self._numbers)}"
        self.uploads[number] = Unfinished(call.key, metadata(call))
        return document("InitiateMultipartUploadResult", f"<UploadId>{number}</UploadId>")

    def _UploadPart(self, call: Call) -> Answer:  # noqa: N802
        upload = self.uploads.get(call.query["uploadId"])
        if upload is None:
            return refusal(404, "NoSuchUpload")
        upload.parts[int(call.query["partNumber"])] = call.body
        return Answer(200, headers={"ETag": Stored(call.body, {}).etag})

    def _CompleteMultipartUpload(self, call: Call) -> Answer:  # noqa: N802
        if call.query["uploadId"] not in self.uploads:
            return refusal(404, "NoSuchUpload")
        if "if-none-match" in call.headers and call.key in self.objects:
            return refusal(412, "PreconditionFailed")
        etag = self.join(call.query["uploadId"]).etag
        return document("CompleteMultipartUploadResult", f"<ETag>{etag}</ETag>")

    def join(self, upload_id: str) -> Stored:
        """Make an object of the parts of an upload."""
        upload = self.uploads.pop(upload_id)
        content = b"".join(upload.parts[number] for number in sorted(upload.parts))
        return self.put(upload.key, content, upload.metadata)

    def _AbortMultipartUpload(self, call: Call) -> Answer:  # noqa: N802
        with contextlib.suppress(KeyError):
            del self.uploads[call.query["uploadId"]]
            return Answer(204)
        return refusal(404, "NoSuchUpload")

    def _ListParts(self, call: Call) -> Answer:  # noqa: N802
        upload = self.uploads.get(call.query["uploadId"])
        if upload is None:
            return refusal(404, "NoSuchUpload")
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber></Part>" for number in upload.parts
        )
        return document("ListPartsResult", parts)

    def _ListMultipartUploads(self, call: Call) -> Answer:  # noqa: N802
        uploads = "".join(
            f"<Upload><Key>{upload.key}</Key><UploadId>{number}</UploadId></Upload>"
            for number, upload in self.uploads.items()
        )
        return document("ListMultipartUploadsResult", uploads)


def metadata(call: Call) -> dict[str, str]:
    """Return the headers that a service keeps with an object."""
    return {name: text for name, text in call.headers.items() if name.startswith("x-amz-meta-")}


def document(name: str, text: str) -> Answer:
    """Return a successful answer with a document."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><{name}>{text}</{name}>'.encode()
    return Answer(200, body, {"Content-Type": "application/xml"})


def listing(*keys: str, more: str = "<IsTruncated>false</IsTruncated>") -> Answer:
    """Return a page of a list of objects; `more` says whether there are others."""
    entries = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    return document("ListBucketResult", more + entries)


def refusal(status: int, code: str = "", message: str = "words", **headers: str) -> Answer:
    """Return a refusal: with a document, or bare where there is no code."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if not code:
        return Answer(status, b"", named)
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return Answer(status, body, {"Content-Type": "application/xml", **named})
