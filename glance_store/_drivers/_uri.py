# SPDX-License-Identifier: Apache-2.0
"""URI checks that several drivers share; their errors quote no secrets."""

from __future__ import annotations

import dataclasses
import urllib.parse

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.location import redact


@dataclasses.dataclass(frozen=True)
class UriSyntax:
    """The schemes and the form of a driver's locations."""

    schemes: tuple[str, ...]  # accepted schemes, lower case; case matters
    form: str  # shown in errors, such as ``rbd://<image>``

    def refuse(self, uri: object, problem: str) -> exceptions.BadStoreUri:
        """Return a BadStoreUri to raise, without the secrets of the URI."""
        return exceptions.BadStoreUri(
            _("The Store URI was malformed: %(uri)s: %(problem)s; the form is %(form)s"),
            uri=redact(uri),
            problem=problem,
            form=self.form,
        )

    def strip_scheme(self, uri: str) -> tuple[str, str]:
        """Split a URI at ``://``; refuse other schemes and characters that no URI may contain."""
        scheme, separator, rest = uri.partition("://") if isinstance(uri, str) else ("", "", "")
        if not separator or scheme not in self.schemes:
            raise self.refuse(uri, _("it does not start with a scheme of this store"))
        if not is_clean(rest):
            raise self.refuse(uri, _("it contains control characters or is not valid Unicode"))
        return scheme, rest

    def split(self, uri: str) -> urllib.parse.SplitResult:
        """Parse a URI; refuse ``.`` and ``..`` in its path, percent-encoded or not."""
        self.strip_scheme(uri)
        try:
            parts: urllib.parse.SplitResult | None = urllib.parse.urlsplit(uri)
        except ValueError:
            parts = None
        # Raised outside the handler: the ValueError quotes the host part, and a chained one gets
        # logged.
        if parts is None:
            raise self.refuse(uri, _("its host part cannot be parsed"))
        if any(urllib.parse.unquote(part) in (".", "..") for part in parts.path.split("/")):
            raise self.refuse(uri, _("its path contains '.' or '..' as a component"))
        return parts

    def decode(self, uri: str, text: str) -> str:
        """Percent-decode a part of a URI; refuse anything but UTF-8 without control characters."""
        try:
            decoded: str | None = urllib.parse.unquote(text, errors="strict")
        except UnicodeDecodeError:
            decoded = None
        if decoded is None or not is_clean(decoded):
            raise self.refuse(uri, _("its percent-encoding does not decode to valid UTF-8 text"))
        return decoded


def is_clean(text: str) -> bool:
    """Tell whether a text is valid Unicode without control characters."""
    # urlsplit() silently drops tabs and line breaks: the URI in use would not be the one checked.
    return not any(char < " " or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in text)


def is_host(authority: str) -> bool:
    """Tell whether a text is a host with an optional port, such as ``[::1]:80``."""
    if "@" in authority:
        return False
    try:
        parts = urllib.parse.urlsplit("//" + authority)
        # Reading the port parses it.
        _port = parts.port
    except ValueError:
        return False
    return bool(parts.hostname)
