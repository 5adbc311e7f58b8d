# SPDX-License-Identifier: Apache-2.0
"""Sends requests to Cinder: sessions with cached tokens, endpoints, retries."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from glance_store import exceptions
from glance_store._drivers._network import ignore_netrc
from glance_store._drivers.cinder import errors
from glance_store.i18n import _
from glance_store.transfer.retry import Patience, seconds_asked

LOG = logging.getLogger(__name__)

# Seconds to retry passing failures, and the limit if the operator has set a retry count, which
# usually runs out first.
_PATIENCE = 30.0
_MAX_SECONDS = 600.0
# Seconds to wait for an answer that the service can start without.
_HURRIED = 5.0
# Status and Retry-After (seconds) of the last answer to this thread.
_LAST = threading.local()

_T = TypeVar("_T")

# The first version whose attachments have a mode; it covers all that reading and writing needs.
ATTACHMENTS = "3.54"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that apply to every request."""

    # As for requests: True, False, or the path of a CA file.
    verify: bool | str
    retries: int | None  # None: no count, retry for _PATIENCE seconds
    request_timeout: float  # seconds
    state_timeout: float  # seconds

    @property
    def patience(self) -> Patience:
        """How long to retry a request that keeps failing for a passing reason."""
        if self.retries is None:
            return Patience(_PATIENCE)
        return Patience(_MAX_SECONDS, most=self.retries)

    def hurried(self) -> Settings:
        """Return the settings for a request whose failure does no harm: ask once, and not long."""
        seconds = min(self.request_timeout, _HURRIED)
        return dataclasses.replace(self, retries=0, request_timeout=seconds)


def library() -> Any:
    """Return cinderclient's client module from the driver's package, or None if missing."""
    # Looked up each time: consumers' tests replace it.
    return sys.modules["glance_store._drivers.cinder"].cinderclient


class Clients:
    """The clients of one store, with its own credentials or those of each request.

    Tokens and connections last as long as the process; a forked child opens its own. `counted` says
    that the operator has set the retry count.
    """

    def __init__(self, store_conf: Any, name: str, counted: bool, hurried: bool = False) -> None:
        self._conf = store_conf
        self._name = name
        authorities = store_conf.cinder_ca_certificates_file
        self.settings = Settings(
            verify=False if store_conf.cinder_api_insecure else authorities or True,
            retries=store_conf.cinder_http_retries if counted else None,
            request_timeout=store_conf.cinder_request_timeout,
            state_timeout=store_conf.cinder_state_transition_timeout,
        )
        if hurried:
            self.settings = self.settings.hurried()
        # Relies on setdefault being atomic: another thread could hold a lock during a fork.
        self._sessions: dict[int, Any] = {}

    @property
    def has_credentials(self) -> bool:
        """Whether the store has credentials, so that its own project owns the volumes."""
        return self._has_application_credential or self._has_password

    @property
    def _has_application_credential(self) -> bool:
        return self._are_set("application_credential_id", "application_credential_secret")

    @property
    def _has_password(self) -> bool:
        return self._are_set("user_name", "password", "project_name")

    def _are_set(self, *names: str) -> bool:
        names = ("auth_address", *names)
        return all(getattr(self._conf, f"cinder_store_{name}") for name in names)

    def make(self, context: Any, version: str) -> Any:
        """Return a client of cinderclient for an API microversion.

        The request's context matters only if the store has no credentials. Raises
        BadStoreConfiguration if there are no credentials or no address of Cinder.
        """
        from cinderclient import api_versions
        from keystoneauth1 import token_endpoint

        session = self._session()
        options: dict[str, Any] = {
            "session": session,
            "region_name": self._conf.cinder_os_region_name,
            # Retries happen here, not in cinderclient.
            "retries": 0,
        }
        template = self._conf.cinder_endpoint_template
        if self.has_credentials:
            kind, name, interface = self._catalog_info()
            options.update(service_type=kind, service_name=name, interface=interface)
            if template:
                options["endpoint_override"] = self._endpoint(template, self._own_values(context))
        else:
            if context is None or not (template or getattr(context, "service_catalog", None)):
                raise self._misconfigured(
                    _(
                        "the store has no credentials (cinder_store_auth_address and related "
                        "options), and the request has no service catalogue"
                    )
                )
            url = (
                self._endpoint(template, _values_of(context))
                if template
                else self._from_catalog(context)
            )
            token = token_endpoint.Token(url, context.auth_token)
            options.update(auth=token, endpoint_override=url)

        return library().Client(api_version=api_versions.APIVersion(version), **options)

    def _misconfigured(self, reason: str) -> exceptions.BadStoreConfiguration:
        return exceptions.BadStoreConfiguration(store_name=self._name, reason=reason)

    def _catalog_info(self) -> tuple[str, str | None, str]:
        parts = (self._conf.cinder_catalog_info or "").split(":")
        if len(parts) != 3 or not parts[0] or not parts[2]:
            raise self._misconfigured(
                _("cinder_catalog_info is %s, but must look like volumev3::publicURL")
                % self._conf.cinder_catalog_info
            )
        return parts[0], parts[1] or None, parts[2]

    def _endpoint(self, template: str, values: dict[str, Any]) -> str:
        try:
            url = template % _Values(values)
        except (KeyError, TypeError, ValueError) as exc:
            raise self._misconfigured(
                _("cinder_endpoint_template is %(template)s, but %(what)s is unknown")
                % {"template": template, "what": exc}
            ) from exc
        if not url.startswith(("http://", "https://")):
            raise self._misconfigured(
                _("cinder_endpoint_template is %s, but must start with http:// or https://")
                % template
            )
        return url

    def _own_values(self, context: Any) -> dict[str, Any]:
        """Return the values for a template, with the project of the store's credentials."""
        values = _values_of(context) if context is not None else {}
        template = self._conf.cinder_endpoint_template
        if "%(" in template:
            action = _("Store %s: asking Keystone for the project") % self._name
            api = Api(self._session(), self.settings)
            own = api.call(action, lambda session: session.get_project_id())
            values.update(tenant=own, tenant_id=own, project_id=own)
        return values

    def _from_catalog(self, context: Any) -> str:
        from keystoneauth1.access.service_catalog import ServiceCatalogV2

        kind, name, interface = self._catalog_info()
        try:
            return str(
                ServiceCatalogV2(context.service_catalog).url_for(
                    service_type=kind,
                    service_name=name,
                    interface=interface,
                    region_name=self._conf.cinder_os_region_name,
                )
            )
        except Exception as exc:
            action = _("Looking for Cinder in the service catalogue")
            raise errors.translate(exc, action, 0) from exc

    def _session(self) -> Any:
        pid = os.getpid()
        session = self._sessions.get(pid)
        if session is None:
            session = self._sessions.setdefault(pid, self._new_session())
        return session

    def _new_session(self) -> Any:
        session: Any = importlib.import_module("keystoneauth1.session")
        from keystoneauth1 import exceptions as auth_exceptions

        class QuietSession(session.Session):  # type: ignore[misc]
            """A session that logs nothing: attachments carry storage keys."""

            def request(self, *args: Any, **kwargs: Any) -> Any:
                kwargs["log"] = False
                _note_answer(None)
                try:
                    response = super().request(*args, **kwargs)
                except auth_exceptions.HttpError as exc:
                    _note_answer(exc.response)
                    raise
                _note_answer(response)
                _check_answer(response)
                return response

        made = QuietSession(
            auth=self._plugin(),
            verify=self.settings.verify,
            timeout=self.settings.request_timeout,
            app_name="glance_store",
        )
        ignore_netrc(made.session)
        return made

    def _plugin(self) -> Any:
        from keystoneauth1.identity import v3

        conf = self._conf
        if self._has_application_credential:
            return v3.ApplicationCredential(
                auth_url=conf.cinder_store_auth_address,
                application_credential_id=conf.cinder_store_application_credential_id,
                application_credential_secret=conf.cinder_store_application_credential_secret,
            )
        if self._has_password:
            return v3.Password(
                auth_url=conf.cinder_store_auth_address,
                username=conf.cinder_store_user_name,
                password=conf.cinder_store_password,
                user_domain_name=conf.cinder_store_user_domain_name,
                project_name=conf.cinder_store_project_name,
                project_domain_name=conf.cinder_store_project_domain_name,
            )
        return None


def _note_answer(response: Any) -> None:
    """Remember the server's status and Retry-After, which its clients' errors may not carry."""
    headers = {} if response is None else response.headers
    _LAST.status = 0 if response is None else response.status_code
    _LAST.retry_after = seconds_asked(headers.get("Retry-After"), headers.get("Date"))


def _check_answer(response: Any) -> None:
    """Raise ValueError for an answer that is not Cinder's: a proxy's page, or a redirect to it."""
    status, kind = response.status_code, response.headers.get("Content-Type", "")
    # An empty answer of Cinder has this type too.
    is_page = kind.startswith("text/") and status < 300 and response.content
    # Cinder's own name for what is missing, unlike a gateway's or that of a wrong path.
    is_wrong = status == 404 and b"itemNotFound" not in response.content
    if is_page or is_wrong or 300 < status < 400:
        raise ValueError(kind)


class Api:
    """Sends requests to Cinder for one operation."""

    def __init__(self, client: Any, settings: Settings) -> None:
        self.client = client
        self.settings = settings

    def call(self, action: str, function: Callable[[Any], _T], again: bool = True) -> _T:
        """Call a function with the client, retry, and translate its errors.

        `action` begins the error's text. `again` allows a retry even if the server may have carried
        out the request.
        """
        try:
            return self.settings.patience.call(
                lambda: _attempt(lambda: function(self.client)),
                errors.is_transient if again else errors.is_refused_for_now,
                lambda exc: f"{action} failed ({errors.text_of(exc)})",
            )
        except Exception as exc:
            raise errors.translate(exc, action, self.settings.request_timeout) from exc

    def settle(
        self, action: str, function: Callable[[Any], _T], find: Callable[[], _T | None]
    ) -> _T:
        """Send a request that must not be carried out twice.

        If its answer is lost, `find` looks for its result before the request is sent again.
        """
        tries = self.settings.patience.tries()
        while True:
            try:
                return self.call(action, function, again=False)
            except errors.CinderUnavailable as exc:
                found = find()
                if found is not None:
                    return found
                if not tries.again(exc):
                    raise


def _attempt(function: Callable[[], _T]) -> _T:
    """Call a function; its error gets the answer's status and Retry-After, if it lacks them."""
    failure: Any
    try:
        return function()
    except errors.GARBLED as exc:
        failure, status = exc, getattr(_LAST, "status", 0)
        failure.patience = errors.CinderGarbled.patience
        if status >= 400 and status != 404:
            from cinderclient.exceptions import ClientException

            # cinderclient cannot read the text, such as a gateway's.
            failure = ClientException(status)
    except Exception as exc:  # noqa: BLE001 - raised again below
        failure = exc
    if seconds := getattr(_LAST, "retry_after", 0.0):
        failure.retry_after = seconds
    raise failure


class _Values(dict[str, Any]):
    """Values for a template. They include the token, so never print them all."""

    def __repr__(self) -> str:
        raise ValueError("%s")


def _values_of(context: Any) -> dict[str, Any]:
    """Return the values of a context by name."""
    to_dict = getattr(context, "to_dict", None)
    values = dict(to_dict() if callable(to_dict) else vars(context))
    project = getattr(context, "project_id", None)
    for name in ("tenant", "tenant_id", "project_id"):
        if values.get(name) is None:
            values[name] = project
    return values
