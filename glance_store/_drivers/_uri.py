# SPDX-License-Identifier: Apache-2.0
"""What the URIs of several drivers have in common: checks, and errors without secrets."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse

from glance_store import exceptions
from glance_store.i18n import _

# Enough to recognise a location in a log line, and no way to flood the log with one.
_LONGEST_SHOWN = 200
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# A host without or with a port; "user:password" without the rest is neither.
_LIKE_A_HOST = re.compile(r"(?:\[[^\]@]*\]|[^:@]*)(?::[0-9]*)?(?:[?#]|$)")


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
            uri=shown(uri),
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


def shown(uri: object) -> str:
    """Return a malformed location as an error may quote it.

    What could not be parsed may hold a secret at any place that credentials can have: everything up
    to the last ``@`` is left out, a host part that looks like credentials, and query and fragment.

    :param uri: the text
    """
    scheme, _separator, rest = str(uri).partition("://")
    if not _SCHEME.fullmatch(scheme) or not rest:
        return "***"
    tail = rest.replace("%40", "@").rpartition("@")[2]
    hidden = rest[: len(rest) - len(tail)]
    if not hidden:
        authority, slash, path = tail.partition("/")
        rest = tail if _LIKE_A_HOST.match(authority) else "***" + slash + path
    elif "?" in hidden or "#" in hidden:
        # What follows the @ may as well belong to a query.
        rest = "***"
    else:
        rest = "***@" + tail
    for mark in "?#":
        rest, found, _query = rest.partition(mark)
        rest += mark + "***" if found else ""
    clean = "".join(char if char.isprintable() else "?" for char in f"{scheme}://{rest}")
    return clean if len(clean) <= _LONGEST_SHOWN else clean[:_LONGEST_SHOWN] + "..."
