# SPDX-License-Identifier: Apache-2.0
"""Errors of boto3, and of the service behind it, as exceptions of this library.

The text has the service's own reason, and no secret. The originals are not chained: a chained
exception is printed with the log line of the new one, and it quotes requests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from glance_store import exceptions
from glance_store._drivers._network import in_words
from glance_store._drivers._objects.errors import (
    DamagedOnTheWay,
    NameTaken,
    NoResult,
    NotSeenYet,
)
from glance_store._drivers.s3.redaction import REDACTION
from glance_store.i18n import _
from glance_store.transfer.retry import PASSING, seconds_asked

_T = TypeVar("_T")

_LONGEST_REASON = 300
# Where an exception keeps the answer that it was made from.
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
    """What an answer of the service becomes.

    The codes of all rules come before the statuses: one status is used for several things, such as
    403 for a full account by the RADOS gateway.
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
        ": the object is in an archive of the service, and has to be restored from there first",
    ),
    # What was stored a moment ago, and a server that lags behind does not know of yet.
    _Rule(NotSeenYet, ("InvalidPart",), ()),
    _Rule(
        DamagedOnTheWay,
        ("BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"),
        (),
        ": the data was damaged on its way to the service, or something there changes it",
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
            "InternalError",
            "RequestTimeout",
            "ServiceUnavailable",
            "SlowDown",
        ),
        # 409: something else was being done with the object at that moment. 498: Swift says so of
        # too many requests.
        (409, 498, *PASSING, *range(500, 600)),
    ),
)
# Services have many words for some things, and answer with one status or another: what a code, or
# the message of one that says nothing, has in it. They come before the rules.
_FULL = ("quota", "storagefull", "storage cap exceeded", "insufficientcapacity")
_TOO_MANY = ("throttl", "toomanyrequests", "requestlimitexceeded")
# What a service may answer that does not know a header; the answer to HEAD has no code but this.
_UNKNOWN = ("", "400", "BadRequest", "InvalidArgument", "InvalidRequest", "NotImplemented")
_UNKNOWN_WORDS = ("header", "not support", "unsupported", "not implement")


class Answer(NamedTuple):
    """What the service said when it refused."""

    status: int
    code: str
    message: str
    region: str | None
    date: str = ""  # the service's time
    wait: float = 0.0  # seconds for which it wants to be left alone

    @classmethod
    def of(cls, response: Any) -> Answer:
        """Read the answer that boto3 keeps with an error.

        :param response: the attribute ``response`` of a ClientError
        """
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
        )

    @property
    def reason(self) -> str:
        """Status, code and message in one line, without secrets."""
        # A HEAD request has the status for its code, and botocore writes "None" for no message.
        parts = [str(self.status)] if self.status else []
        if self.code and self.code != str(self.status):
            parts.append(self.code)
        text = " ".join(parts)
        message = "" if self.message in ("None", "") else self.message
        if message:
            text = f"{text}: {message}"
        clean = "".join(char if char.isprintable() else " " for char in REDACTION.scrub(text))
        return clean[:_LONGEST_REASON]


def answer_of(error: BaseException) -> Answer | None:
    """Return the answer of the service that an exception was made from; None if there was none.

    :param error: what `guarded` has raised
    """
    answer: Answer | None = getattr(error, _ANSWER, None)
    return answer


def keep_answer(error: Exception, answer: Answer) -> None:
    """Let an exception tell of an answer.

    :param error: the exception
    :param answer: what `answer_of` returns for it from now on
    """
    setattr(error, _ANSWER, answer)
    error.status = answer.status  # type: ignore[attr-defined]
    if answer.wait:
        error.retry_after = answer.wait  # type: ignore[attr-defined]


def wants_md5(error: Exception) -> bool:
    """Tell whether a service wants a checksum with a body, as a bucket with Object Lock does.

    :param error: what `guarded` has raised
    """
    answer = answer_of(error)
    if answer is None or answer.status != 400 or isinstance(error, DamagedOnTheWay):
        return False
    text = f"{answer.code} {answer.message}".lower().replace("-", "")
    return "contentmd5" in text or "xamzchecksum" in text


def is_unknown_feature(error: Exception) -> bool:
    """Tell whether a request may have been refused for a header that the service does not know.

    :param error: what `guarded` has raised
    """
    answer = answer_of(error)
    if answer is None or answer.code in _ELSEWHERE:
        return False
    if isinstance(error, DamagedOnTheWay) or wants_md5(error):
        return False
    if answer.status in (405, 417, 501):
        return True
    words = f"{answer.code} {answer.message}".lower()
    named = answer.code in _UNKNOWN or any(each in words for each in _UNKNOWN_WORDS)
    return answer.status == 400 and type(error) is exceptions.BackendException and named


def guarded(call: Callable[[], _T], action: str, image: str | None = None) -> _T:
    """Call a function that uses boto3, and translate its errors.

    :param call: the function
    :param action: what is tried, in words without secrets: the beginning of the error's text
    :param image: what to call the object that may be missing
    :returns: what the function returns
    :raises NotFound: the service has no such object
    :raises Forbidden: the service refuses
    :raises StorageFull: the object is too large, or the account is full
    :raises RemoteServiceUnavailable: the service cannot be reached or is overloaded
    :raises BadStoreConfiguration: there are no credentials, or the client cannot work with the
        options
    :raises BackendException: any other answer
    """
    try:
        return call()
    except (exceptions.GlanceStoreException, exceptions.BackendException):
        raise
    except Exception as exc:
        error = translate(exc, action, image)
        if error is None:
            raise
    # Raised out here: inside, the original would be its context.
    raise error


def translate(exc: Exception, action: str, image: str | None = None) -> Exception | None:
    """Return the exception for one of boto3 or of what is below it; None if it is neither.

    :param exc: what was raised
    :param action: what was tried
    :param image: what to call the object that may be missing
    """
    import botocore.exceptions
    import urllib3.exceptions

    if isinstance(exc, botocore.exceptions.ClientError):
        return _of_answer(Answer.of(exc.response), action, image)
    if isinstance(exc, botocore.exceptions.BotoCoreError):
        return _of_library(exc, action)
    if isinstance(exc, (urllib3.exceptions.HTTPError, OSError)):
        return exceptions.BackendUnavailable(
            _("%(action)s: the connection failed (%(cause)s)"), action=action, cause=_cause(exc)
        )
    if type(exc).__name__ == "ResponseParserError":
        return NoResult(_("%s: the answer is none of the service") % action)
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
    # The answer to HEAD has no body with a code, but it names the region when that is wrong.
    other_region = answer.status == 400 and answer.region is not None
    if answer.code in _ELSEWHERE or answer.status in (301, 302, 307, 308) or other_region:
        where = _(" (the bucket is in the region %s)") % answer.region if answer.region else ""
        return exceptions.BackendException(
            text
            + where
            + _(": set s3_store_host and s3_store_region_name to the place of the bucket")
        )
    if answer.status == 400 and "progress" in answer.message:
        # It joins the parts of this object, and has not said so to the first request.
        return exceptions.BackendUnavailable(text)
    if answer.status == 400 and answer.code in ("", "400"):
        return exceptions.BackendException(
            text + _(": its answer has no reason; check s3_store_region_name, and the clock")
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
    return None


def _of_library(exc: Exception, action: str) -> Exception:
    # By the name of the class and of its bases: not all of them are in every release.
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
                "; when the certificate of the service is signed by a private authority, name the "
                "file with the authority's certificate in s3_store_cacert"
            )
        elif "ProxyConnectionError" in names:
            hint = _("; the proxy cannot be used (s3_store_proxies)")
        return exceptions.BackendUnavailable(
            _("%(action)s: the connection failed (%(cause)s)%(hint)s"),
            action=action,
            cause=_cause(exc),
            hint=hint,
        )
    return exceptions.BackendException(
        f"{action}: {type(exc).__name__}: {_one_line(str(exc))}"
        if "ParamValidationError" not in names
        else f"{action}: the client library refuses the name of the bucket or of the object"
    )


def _cause(exc: BaseException) -> str:
    """Return the innermost cause in words; texts of the layers above it quote addresses."""
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
