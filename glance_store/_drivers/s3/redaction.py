# SPDX-License-Identifier: Apache-2.0
"""Keeps credentials out of log lines, including the DEBUG lines of the client library."""

from __future__ import annotations

import logging
import re

_HIDDEN = "***"
_LIBRARIES = ("botocore", "boto3", "urllib3")
_SHORTEST = 4  # a shorter text occurs everywhere, and is not a secret

# How credentials appear in the logged requests and responses of S3 and of the services that issue
# credentials. Continuation tokens of listings are hidden as well, which does no harm.
_NAMES = r"[\w.-]*(?:token|secret|password|access_?key(?:_?id)?)"
_PATTERNS = (
    re.compile(r"(?i)(Credential=)[^/,\s'\"]+"),
    # {'WebIdentityToken': 'x'}, {"clientSecret":"x"}, ('x-amz-sso_bearer_token', b'x')
    re.compile(rf"(?is)((['\"]){_NAMES}\2\s*[:,]\s*b?(['\"]))(?:(?!\3).)*"),
    # x-amz-security-token:x
    re.compile(r"(?i)(?<![\w-])(x-a(?:mz|ws)-[\w-]*token\s*:\s*)[^\s'\",}]+"),
    # WebIdentityToken=x&Version=...
    re.compile(rf"(?i)(?<![\w.-])({_NAMES}=)[^&\s'\",}}]+"),
    re.compile(r"(?i)(authorization['\"]?\s*[:,]\s*b?['\"]?(?:bearer|basic)\s+)[^\s'\"]+"),
    re.compile(rf"(?i)(<{_NAMES}>)[^<]*"),
    # urllib3 on the address of a proxy with an unquoted password.
    re.compile(r"(Failed to parse: ).*"),
)


_FORMATTER = logging.Formatter()


class Redaction(logging.Filter):
    """Removes from log records the credentials of all stores of the process."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: tuple[str, ...] = ()

    def hide(self, *texts: str | None) -> None:
        """Treat further texts as secrets; None and very short texts are ignored."""
        new = {text for text in texts if text and len(text) >= _SHORTEST}
        # Longest first, because one may be part of another. Assigned at once, because other threads
        # may be reading.
        self._texts = tuple(sorted(new | set(self._texts), key=len, reverse=True))

    def scrub(self, text: str) -> str:
        """Return a text without credentials."""
        for secret in self._texts:
            text = text.replace(secret, _HIDDEN)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\g<1>{_HIDDEN}", text)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a record, and let it pass."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            # The record cannot be formatted; logging reports that itself.
            return True
        clean = self.scrub(text)
        if clean != text:
            record.msg, record.args = clean, ()
        if record.exc_info:
            self._clean_traceback(record)
        return True

    def _clean_traceback(self, record: logging.LogRecord) -> None:
        """Replace an exception with its text, if that has a secret."""
        text = _FORMATTER.formatException(record.exc_info)  # type: ignore[arg-type]
        clean = self.scrub(text)
        if clean != text:
            # A formatter would format the exception again.
            record.exc_info, record.exc_text = None, clean

    def watch(self) -> None:
        """Clean what the client library and the layers below it log from now on."""
        for name in list(logging.root.manager.loggerDict):
            if name.partition(".")[0] in _LIBRARIES:
                # Adding it twice does no harm: a logger keeps a filter once.
                logging.getLogger(name).addFilter(self)


REDACTION = Redaction()
