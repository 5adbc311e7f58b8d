# SPDX-License-Identifier: Apache-2.0
"""Accounts that locations name by reference instead of holding their credentials.

They are the sections of the file in `swift_store_config_file`. Without a file, the account in the
options of the store is the only one, under the name in `default_swift_reference`.
"""

from __future__ import annotations

import configparser
import dataclasses
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.swift.options import ACCOUNT_OPTIONS
from glance_store.i18n import _
from glance_store.store_options import DEFAULT_GROUP, BackendGroupConfiguration

if TYPE_CHECKING:
    from collections.abc import Mapping

LOG = logging.getLogger(__name__)

# An account's credentials: a pair of either kind, and the project of the second kind.
CREDENTIAL = (
    "user",
    "key",
    "application_credential_id",
    "application_credential_secret",
    "project_name",
    "project_id",
)

_QUOTES = "\"'"
_DEFAULT_DOMAIN = "default"

# {path: (identity of the file's content, its references)}: each file has its own parser.
_Stamp = tuple[int, int, int, int]
_PARSED: dict[str, tuple[_Stamp, Mapping[str, Reference]]] = {}


@dataclasses.dataclass(frozen=True)
class Reference:
    """One account.

    Either `user` and `key` are set, or `application_credential_id` and `_secret`. An `auth_address`
    without a scheme means https.
    """

    auth_address: str
    user: str | None = dataclasses.field(default=None, repr=False)
    key: str | None = dataclasses.field(default=None, repr=False)
    application_credential_id: str | None = dataclasses.field(default=None, repr=False)
    application_credential_secret: str | None = dataclasses.field(default=None, repr=False)
    project_name: str | None = None
    project_id: str | None = None
    user_domain_id: str | None = _DEFAULT_DOMAIN
    user_domain_name: str | None = None
    project_domain_id: str | None = _DEFAULT_DOMAIN
    project_domain_name: str | None = None
    auth_version: str = "3"

    def of_user(self, user: str | None, key: str | None) -> Reference:
        """Return the account of another user in the same domains."""
        credential: dict[str, Any] = {**dict.fromkeys(CREDENTIAL), "user": user, "key": key}
        return dataclasses.replace(self, **credential)

    @property
    def ssl_enabled(self) -> bool:
        """Whether the identity service uses https."""
        return not self.auth_address.lower().startswith("http://")

    @property
    def bare_address(self) -> str:
        """The address of the identity service without its scheme."""
        return without_scheme(self.auth_address)


class _SectionError(Exception):
    """A section cannot be used; the text says why, without quoting its values."""


def without_scheme(address: str) -> str:
    """Return an address without a leading ``http://`` or ``https://``."""
    return address.partition("://")[2] if is_http(address) else address


def is_http(address: str) -> bool:
    """Tell whether an address begins with ``http://`` or ``https://``."""
    return address.lower().startswith(("http://", "https://"))


def settings(conf: cfg.ConfigOpts, backend_group: str | None) -> Any:
    """Return the options of a store as attributes, with their fallbacks."""
    if backend_group:
        # Only a few, because they are registered again for each location.
        return BackendGroupConfiguration(ACCOUNT_OPTIONS, backend_group, conf=conf)
    return getattr(conf, DEFAULT_GROUP)


def load(conf: cfg.ConfigOpts, backend_group: str | None) -> Mapping[str, Reference]:
    """Return the accounts of a store by name, without those whose section cannot be used."""
    options = settings(conf, backend_group)
    if options.swift_store_config_file:
        return _load_file(_find(conf, options.swift_store_config_file), backend_group or "swift")
    reference = _from_options(options)
    return {options.default_swift_reference: reference} if reference else {}


def _find(conf: cfg.ConfigOpts, name: str) -> str:
    if Path(name).is_absolute():
        return name
    try:
        found = conf.find_file(name)
    except cfg.NotInitializedError:
        # A configuration without files has no directories to look in.
        found = None
    return found or name


def _from_options(options: Any) -> Reference | None:
    address = options.swift_store_auth_address
    values = {name: getattr(options, f"swift_store_{name}") for name in CREDENTIAL}
    try:
        return Reference(address, **_credentials(values)) if address else None
    except _SectionError:
        return None


def _load_file(path: str, store: str) -> Mapping[str, Reference]:
    """Return the accounts in a file, parsed again only when it has changed."""
    problem: str
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            status = os.fstat(file.fileno())
            stamp = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            known = _PARSED.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            parser = configparser.ConfigParser()
            parser.read_file(file)
    except OSError as exc:
        problem = exc.strerror or type(exc).__name__
    except UnicodeDecodeError:
        problem = _("it is not valid UTF-8")
    except configparser.Error as exc:
        problem = _describe(exc)
    else:
        references = _from_sections(parser, path)
        _PARSED[path] = (stamp, references)
        return references
    # Raised here, and not in the handlers: the parser's errors quote lines, and so passwords.
    raise exceptions.BadStoreConfiguration(
        store_name=store,
        reason=_("the file %(path)s of swift_store_config_file cannot be used: %(problem)s")
        % {"path": path, "problem": problem},
    )


def _describe(exc: configparser.Error) -> str:
    if isinstance(exc, configparser.MissingSectionHeaderError):
        return str(_("line %d comes before the first [section]") % exc.lineno)
    if isinstance(exc, configparser.ParsingError):
        return str(_("line %d is not of the form 'name = value'") % exc.errors[0][0])
    if isinstance(exc, (configparser.DuplicateSectionError, configparser.DuplicateOptionError)):
        return str(_("line %s repeats a section or a name") % exc.lineno)
    return type(exc).__name__


def _from_sections(parser: configparser.ConfigParser, path: str) -> Mapping[str, Reference]:
    found = {}
    for name in parser.sections():
        try:
            found[name] = _reference(parser[name], path)
        except _SectionError as exc:
            LOG.warning(
                "Swift accounts in %s: section [%s] is skipped, so images that refer to it cannot "
                "be reached: %s",
                path,
                name,
                exc,
            )
    return found


def _reference(section: configparser.SectionProxy, path: str) -> Reference:
    values = {name: _value(section, name) for name in section}
    if values.get("auth_version", "3") != "3":
        LOG.warning(
            "Swift accounts in %s: auth_version of section [%s] is ignored, version 3 is used; "
            "remove it",
            path,
            section.name,
        )
    return Reference(
        _address(values),
        **_credentials(values),
        **_domain("user", values),
        **_domain("project", values),
    )


def _address(values: Mapping[str, str]) -> str:
    address = values.get("auth_address")
    if not address:
        raise _SectionError("it has no auth_address")
    if "://" in address and not is_http(address):
        raise _SectionError("auth_address begins with neither http:// nor https://")
    return address


def _credentials(values: Mapping[str, str | None]) -> dict[str, Any]:
    user, key, identity, secret, *_project = (values.get(name) for name in CREDENTIAL)
    if identity and secret:
        return {name: values.get(name) for name in CREDENTIAL[2:]}
    if user and key:
        if not all(user.partition(":")):
            raise _SectionError("user is not of the form <project>:<user>")
        return {"user": user, "key": key}
    if identity or secret:
        raise _SectionError(
            "an application credential needs application_credential_id and "
            "application_credential_secret"
        )
    raise _SectionError("it needs user and key, or an application credential")


def _domain(kind: str, values: Mapping[str, str]) -> dict[str, Any]:
    identity = values.get(f"{kind}_domain_id")
    name = values.get(f"{kind}_domain_name")
    if not identity and not name:
        identity = _DEFAULT_DOMAIN
    return {f"{kind}_domain_id": identity, f"{kind}_domain_name": name}


def _value(section: configparser.SectionProxy, name: str) -> str:
    try:
        value: str | None = section[name]
    except configparser.InterpolationError:
        value = None
    if value is None:
        # Raised here, and not in the handler: the parser's own error quotes the value.
        raise _SectionError(f"a percent sign in {name} must be doubled")
    if not value.startswith(tuple(_QUOTES)):
        return value
    if len(value) < 2 or value[-1] != value[0]:
        raise _SectionError(f"the quote in {name} is not closed")
    return value[1:-1]
