# SPDX-License-Identifier: Apache-2.0
"""What the URIs of several drivers have in common: checks, and errors without secrets."""

from __future__ import annotations

import dataclasses
import urllib.parse

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.location import redact


@dataclasses.dataclass(frozen=True)
class UriSyntax:
    """The form of a driver's locations.

    :param schemes: the schemes to accept, lower case; case matters
    :param form: a pattern to show in errors, such as ``rbd://<image>``
    """

    schemes: tuple[str, ...]
    form: str

    def refuse(self, uri: object, problem: str) -> exceptions.BadStoreUri:
        """Return the error for a malformed location, ready to raise.

        :param uri: the text; secrets in it are left out
        :param problem: what is wrong with it
        """
        return exceptions.BadStoreUri(
            _("The Store URI was malformed: %(uri)s: %(problem)s; the form is %(form)s"),
            uri=redact(uri),
            problem=problem,
            form=self.form,
        )

    def strip_scheme(self, uri: str) -> tuple[str, str]:
        """Take the scheme off a location.

        :param uri: the text
        :returns: the scheme, and what follows ``://``
        :raises BadStoreUri: another scheme, or characters that no URI may have
        """
        scheme, separator, rest = uri.partition("://") if isinstance(uri, str) else ("", "", "")
        if not separator or scheme not in self.schemes:
            raise self.refuse(uri, _("it does not start with a scheme of this store"))
        if not is_clean(rest):
            raise self.refuse(uri, _("it contains control characters or is not valid Unicode"))
        return scheme, rest

    def split(self, uri: str) -> urllib.parse.SplitResult:
        """Split a location into scheme, host part, path and query.

        :param uri: the text
        :raises BadStoreUri: as `strip_scheme`, and for a host part that cannot be parsed and for
            path components ``.`` and ``..``, also percent-encoded
        """
        self.strip_scheme(uri)
        try:
            parts: urllib.parse.SplitResult | None = urllib.parse.urlsplit(uri)
        except ValueError:
            parts = None
        # Raised out here: the ValueError quotes the host part, and a chained one would be logged.
        if parts is None:
            raise self.refuse(uri, _("its host part cannot be parsed"))
        if any(urllib.parse.unquote(part) in (".", "..") for part in parts.path.split("/")):
            raise self.refuse(uri, _("its path contains '.' or '..' as a component"))
        return parts

    def decode(self, uri: str, text: str) -> str:
        """Decode the percent-encoding of a part of a location.

        :param uri: the whole location, for the error
        :param text: the part
        :raises BadStoreUri: the result is no UTF-8, or contains control characters
        """
        try:
            decoded: str | None = urllib.parse.unquote(text, errors="strict")
        except UnicodeDecodeError:
            decoded = None
        if decoded is None or not is_clean(decoded):
            raise self.refuse(uri, _("its percent-encoding is not the one of a UTF-8 text"))
        return decoded


def is_clean(text: str) -> bool:
    """Tell whether a text is valid Unicode without control characters."""
    # urlsplit drops tabs and line ends without a word: what was checked would not be what is used.
    return not any(char < " " or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in text)


def is_host(authority: str) -> bool:
    """Tell whether a text is a host with an optional port, and no credentials.

    :param authority: such as ``example.com:8080`` or ``[::1]``
    """
    if "@" in authority:
        return False
    try:
        parts = urllib.parse.urlsplit("//" + authority)
        # The port is parsed when it is read.
        _port = parts.port
    except ValueError:
        return False
    return bool(parts.hostname)
