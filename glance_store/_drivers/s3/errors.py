# SPDX-License-Identifier: Apache-2.0
"""Translate errors of boto3, and of the service behind it, into exceptions of this library.

The text has the service's own reason, and no secret. The originals are not chained: a chained
exception is printed with the log line of the new one, and it quotes requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from glance_store import exceptions
from glance_store._drivers._network import in_words
from glance_store._drivers._objects.errors import (
    DamagedInTransit,
    NameTaken,
    NoResult,
    NotSeenYet,
)
from glance_store._drivers.s3.redaction import REDACTION
from glance_store.i18n import _
from glance_store.transfer.retry import PASSING, seconds_asked

_T = TypeVar("_T")

_LONGEST_REASON = 300
# The attribute in which an exception keeps the response that it was made from.
_ANSWER = "s3_answer"

_MISSING = ("NoSuchBucket", "NoSuchKey", "NoSuchUpload", "NoSuchVersion")
_ELSEWHERE = (
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
)
_NO_CREDENTIALS = (
    "CredentialRetrievalError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "SSOError",
)
_NETWORK = (
    "ConnectionClosedError",
    "ConnectionError",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "HTTPClientError",
    "IncompleteReadError",
    "ProxyConnectionError",
    "ReadTimeoutError",
    "ResponseStreamingError",
    "SSLError",
)


class _Rule(NamedTuple):
    """The exception for a response of the service.

    The codes of all rules come before the statuses, because one status has several meanings: the
    RADOS gateway answers 403 for a full account, for example.
    """

    kind: type[Exception]
    codes: tuple[str, ...]
    statuses: tuple[int, ...]
    hint: str = ""


_RULES = (
    _Rule(
        exceptions.Forbidden,
        (
            "AccessDenied",
            "AccountProblem",
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidAccessKeyId",
            "InvalidToken",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
        ),
        (401, 403),
        ": check the credentials, their rights on the bucket, and the clock of this host",
    ),
    _Rule(NameTaken, ("PreconditionFailed",), (412,)),
    _Rule(
        exceptions.BackendException,
        ("BucketAlreadyExists", "BucketAlreadyOwnedByYou", "InvalidBucketState"),
        (),
    ),
    _Rule(
        exceptions.BackendException,
        ("InvalidObjectState",),
        (),
        ": the object is archived; restore it first",
    ),
    # Stored a moment ago, and unknown to a server that lags behind.
    _Rule(NotSeenYet, ("InvalidPart",), ()),
    _Rule(
        DamagedInTransit,
        ("BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"),
        (),
        ": the data was damaged in transit, or a proxy changes it",
    ),
    _Rule(
        exceptions.StorageFull,
        (
            "EntityTooLarge",
            "InsufficientStorage",
        ),
        (413, 507),
    ),
    _Rule(exceptions.BackendException, ("NotImplemented",), (501,)),
    _Rule(exceptions.TruncatedImage, ("InvalidRange",), (416,)),
    _Rule(
        exceptions.BackendUnavailable,
        (
            # The rest of the body was lost between a proxy and the service.
            "IncompleteBody",
            "InternalError",
            "RequestTimeout",
            "ServiceUnavailable",
            "SlowDown",
        ),
        # 409: another request was changing the object at that moment. 498: Swift's status for too
        # many requests.
        (409, 498, *PASSING, *range(500, 600)),
    ),
)
# Services report these conditions in many words and with varying statuses. Words in a code, or in
# the message of AccessDenied, come before the rules.
_FULL = ("quota", "storagefull", "storage cap exceeded", "insufficientcapacity")
_TOO_MANY = ("throttl", "toomanyrequests", "requestlimitexceeded")
# In the message of 400: the service is still joining the parts for an earlier request, or the rest
# of the body was lost in transit (Backblaze).
_PASSING_WORDS = ("progress", "body was too small")
# Codes of a service that does not know a header; a response to HEAD has only its status.
_UNKNOWN = ("", "400", "BadRequest", "InvalidArgument", "InvalidRequest", "NotImplemented")
# The media types of a proxy's pages.
_PAGES = ("text/", "application/json", "application/xhtml")
_UNKNOWN_WORDS = ("header", "not support", "unsupported", "not implement")


class Answer(NamedTuple):
    """What the service said when it refused."""

    status: int
    code: str
    message: str
    region: str | None
    date: str = ""  # the service's time
    wait: float = 0.0  # seconds that it asks to be left alone
    media: str = ""  # what its body is

    @classmethod
    def of(cls, response: Any) -> Answer:
        """Read the response that boto3 keeps with a ClientError."""
        error = response.get("Error", {})
        about = response.get("ResponseMetadata", {})
        headers = about.get("HTTPHeaders") or {}
        return cls(
            status=int(about.get("HTTPStatusCode") or 0),
            code=str(error.get("Code") or ""),
            message=str(error.get("Message") or ""),
            region=error.get("Region") or headers.get("x-amz-bucket-region"),
            date=str(headers.get("date", "")),
            wait=seconds_asked(headers.get("retry-after"), headers.get("date")),
            media=str(headers.get("content-type", "")).lower(),
        )

    @property
    def is_page(self) -> bool:
        """Whether it looks like a proxy's response: S3 services answer in XML.

        The response to HEAD proves nothing.
        """
        xml = "xml" in self.media and "html" not in self.media
        page = self.media.startswith(_PAGES) and not xml
        return page and self.code in ("", str(self.status))

    @property
    def reason(self) -> str:
        """Status, code and message in one line, without secrets."""
        # For HEAD, botocore repeats the status as the code; a missing message is "None".
        parts = [str(self.status)] if self.status else []
        if self.code and self.code != str(self.status):
            parts.append(self.code)
        text = " ".join(parts)
        message = "" if self.message in ("None", "") else self.message
        if message:
            text = f"{text}: {message}"
        return _one_line(text)


def answer_of(error: BaseException) -> Answer | None:
    """Return the `Answer` that an exception was made from, if any."""
    answer: Answer | None = getattr(error, _ANSWER, None)
    return answer


def keep_answer(error: Exception, answer: Answer) -> None:
    """Attach an `Answer` to an exception."""
    setattr(error, _ANSWER, answer)
    error.status = answer.status  # type: ignore[attr-defined]
    if answer.wait:
        error.retry_after = answer.wait  # type: ignore[attr-defined]


def wants_md5(error: Exception) -> bool:
    """Tell whether the service demands a checksum of the body, as with Object Lock."""
    answer = answer_of(error)
    if answer is None or answer.status != 400 or isinstance(error, DamagedInTransit):
        return False
    text = f"{answer.code} {answer.message}".lower().replace("-", "")
    return "contentmd5" in text or "xamzchecksum" in text


def may_be_checksum(error: Exception) -> bool:
    """Tell whether the service may have refused a checksum that it does not know.

    If a proxy drops or changes its header, the signature no longer matches.
    """
    answer = answer_of(error)
    unsigned = answer is not None and answer.code == "SignatureDoesNotMatch"
    return unsigned or is_unknown_feature(error)


def is_unknown_feature(error: Exception) -> bool:
    """Tell whether the service may have refused a header that it does not know."""
    answer = answer_of(error)
    if answer is None or answer.code in _ELSEWHERE:
        return False
    if isinstance(error, DamagedInTransit) or wants_md5(error):
        return False
    if answer.status in (405, 417, 501):
        return True
    words = f"{answer.code} {answer.message}".lower()
    named = answer.code in _UNKNOWN or any(each in words for each in _UNKNOWN_WORDS)
    return answer.status == 400 and type(error) is exceptions.BackendException and named


def guarded(call: Callable[[], _T], action: str, image: str | None = None) -> _T:
    """Call a function that uses boto3, and translate its errors.

    `action` begins the error's text, and must contain no secret. Only with `image`, the name of the
    object that may be missing, does a missing object raise NotFound.
    """
    try:
        return call()
    except (exceptions.GlanceStoreException, exceptions.BackendException):
        raise
    except Exception as exc:
        error = translate(exc, action, image)
        if error is None:
            raise
    # Raised here, and not in the handler, where the original would become its context.
    raise error


def translate(exc: Exception, action: str, image: str | None = None) -> Exception | None:
    """Return the exception for one of boto3 or the layers below it; None for any other."""
    import botocore.exceptions
    import urllib3.exceptions

    if isinstance(exc, botocore.exceptions.ClientError):
        answer = Answer.of(exc.response)
        if answer.status == 404 and answer.is_page and not exc.operation_name.startswith("Head"):
            # Such as that of an ingress controller whose service is being restarted.
            return NoResult(
                _("%s: 404 with a page that is not from an S3 service; look for a proxy") % action
            )
        return _of_answer(answer, action, image)
    if isinstance(exc, botocore.exceptions.BotoCoreError):
        return _of_library(exc, action)
    if isinstance(exc, (urllib3.exceptions.HTTPError, OSError)):
        return exceptions.BackendUnavailable(
            _("%(action)s: the connection failed (%(cause)s)"), action=action, cause=_cause(exc)
        )
    if type(exc).__name__ == "ResponseParserError":
        return NoResult(_("%s: the response is not a valid S3 response") % action)
    if type(exc).__module__.partition(".")[0] in ("boto3", "botocore"):
        return exceptions.BackendException(f"{action}: {type(exc).__name__}")
    return None


def _of_answer(answer: Answer, action: str, image: str | None) -> Exception:
    error = _exception_for(answer, action, image)
    keep_answer(error, answer)
    return error


def _exception_for(answer: Answer, action: str, image: str | None) -> Exception:
    text = f"{action}: the service answered {answer.reason}"
    if image is not None and (answer.code in _MISSING or answer.status == 404):
        return exceptions.NotFound(
            _("Image %(image)s not found: the service answered %(reason)s"),
            image=image,
            reason=answer.reason,
        )
    # A response to HEAD has no code, but it names the region if the request used the wrong one.
    other_region = answer.status == 400 and answer.region is not None
    if answer.code in _ELSEWHERE or answer.status in (301, 302, 307, 308) or other_region:
        where = _(" (the bucket is in the region %s)") % answer.region if answer.region else ""
        return exceptions.BackendException(
            text + where + _(": set s3_store_host and s3_store_region_name to those of the bucket")
        )
    if answer.status == 400 and any(each in answer.message for each in _PASSING_WORDS):
        return exceptions.BackendUnavailable(text)
    if answer.status == 400 and answer.code in ("", "400"):
        return exceptions.BackendException(
            text + _(": it gave no reason; check s3_store_region_name, and the clock of this host")
        )
    by_code = (rule for rule in _RULES if answer.code in rule.codes)
    by_status = (rule for rule in _RULES if answer.status in rule.statuses)
    rule = _rule_by_words(answer) or next(by_code, None) or next(by_status, None)
    return rule.kind(text + rule.hint) if rule else exceptions.BackendException(text)


def _rule_by_words(answer: Answer) -> _Rule | None:
    words = answer.code.lower()
    if answer.code == "AccessDenied":
        words = answer.message.lower()
    if any(each in words for each in _TOO_MANY):
        return _Rule(exceptions.BackendUnavailable, (), ())
    if any(each in words for each in _FULL):
        return _Rule(exceptions.StorageFull, (), ())
    if "same length" in answer.message:
        # Cloudflare R2, of the parts of an image; its code is that of a part it does not know yet.
        return _Rule(exceptions.BackendException, (), (), ": set s3_store_equal_parts to True")
    return None


def _of_library(exc: Exception, action: str) -> Exception:
    # Compare names of classes: not every release has all of them.
    names = {base.__name__ for base in type(exc).__mro__}
    if names & set(_NO_CREDENTIALS):
        return exceptions.BadStoreConfiguration(
            _(
                "%(action)s: no valid credentials (%(kind)s): set s3_store_access_key and "
                "s3_store_secret_key, or give the service a role or a profile"
            ),
            action=action,
            kind=type(exc).__name__,
        )
    if names & set(_NETWORK):
        hint = ""
        if "SSLError" in names:
            hint = _(
                "; if a private authority signed the service's certificate, set s3_store_cacert "
                "to the file with the authority's certificate"
            )
        elif "ProxyConnectionError" in names:
            hint = _("; the proxy does not work: check s3_store_proxies")
        return exceptions.BackendUnavailable(
            _("%(action)s: the connection failed (%(cause)s)%(hint)s"),
            action=action,
            cause=_cause(exc),
            hint=hint,
        )
    return exceptions.BackendException(
        f"{action}: {type(exc).__name__}: {_one_line(str(exc))}"
        if "ParamValidationError" not in names
        else f"{action}: the client library rejects the name of the bucket or of the object"
    )


def _cause(exc: BaseException) -> str:
    """Return the innermost cause in words; the texts of the layers above it quote addresses."""
    for _level in range(12):
        inner = [getattr(exc, "kwargs", {}).get("error"), getattr(exc, "reason", None), *exc.args]
        deeper = next((item for item in inner if isinstance(item, BaseException)), None)
        if deeper is None:
            break
        exc = deeper
    words = in_words(exc)
    return _one_line(words) if words else type(exc).__name__


def _one_line(text: str) -> str:
    clean = "".join(char if char.isprintable() else " " for char in REDACTION.scrub(text))
    return clean[:_LONGEST_REASON]
