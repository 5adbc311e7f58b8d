# SPDX-License-Identifier: Apache-2.0
"""The vSphere API, through oslo.vmware.

Its `VMwareAPISession` is not used. That class waits ten seconds after a session has expired, sets
no time limit on loading the service description or on tasks, and checks whether a session is
active, which requires an extra privilege. It also needs oslo.service, which chooses a threading
model for the whole process on import.
"""

from __future__ import annotations

import functools
import io
import logging
from typing import TYPE_CHECKING, Any

import requests

from glance_store import exceptions
from glance_store._drivers._patience import prepare
from glance_store.i18n import _

if TYPE_CHECKING:
    from glance_store._drivers.vmware_datastore.session import Settings


class _Quiet(logging.Filter):
    """Drops suds's DEBUG records, which quote the password."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to keep a record."""
        return record.levelno > logging.DEBUG


_QUIET = _Quiet()


def check_library() -> None:
    """Raise BadStoreConfiguration if oslo.vmware is not installed."""
    try:
        from oslo_vmware import vim  # noqa: F401 - only whether it is there
    except ImportError as exc:
        raise exceptions.BadStoreConfiguration(
            _("oslo.vmware cannot be loaded (%s): pip install 'glance_store[vmware]'") % exc
        ) from exc


def connect(settings: Settings) -> Any:
    """Load the service description, and return a `Vim` whose requests all have a time limit."""
    from oslo_vmware import service, vim
    from suds import transport

    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "suds":
            logging.getLogger(name).addFilter(_QUIET)

    class Transport(service.RequestsTransport):  # type: ignore[misc]
        """Sends SOAP requests, only to the configured server and always with a time limit."""

        limits = settings.limits

        def __init__(self) -> None:
            if isinstance(settings.verify, str):
                super().__init__(settings.verify)
            else:
                super().__init__(insecure=not settings.verify)
            prepare(self.session, settings.read_timeout)

        def open(self, request: Any) -> io.BytesIO:
            """Load a document."""
            response = self.session.get(
                request.url, verify=self.verify, timeout=self.limits, allow_redirects=False
            )
            _check(response, (200,))
            return io.BytesIO(response.content)

        def send(self, request: Any) -> Any:
            """Send a message, without following redirects: they would leak the password."""
            response = self.session.post(
                request.url,
                data=request.message,
                headers=request.headers,
                verify=self.verify,
                timeout=self.limits,
                allow_redirects=False,
            )
            if response.status_code == 500 and b"Envelope" in response.content:
                # This is how suds expects faults.
                fault = io.BytesIO(response.content)
                raise transport.TransportError(response.reason, response.status_code, fault)
            _check(response, (200,))
            return transport.Reply(200, response.headers, response.content)

    class Vim(vim.Vim):  # type: ignore[misc]
        """The API, on that transport."""

        def __init__(self) -> None:
            self.wsdl_url = f"{settings.base_url}/sdk/vimService.wsdl"
            self.soap_url = f"{settings.base_url}/sdk"
            self.op_id_prefix = "glance_store"
            self._service_content = None
            self._vc_session_cookie = None
            self.client = service.CompatibilitySudsClient(
                self.wsdl_url,
                transport=Transport(),
                location=self.soap_url,
                plugins=[service.ServiceMessagePlugin()],
                cache=_descriptions(),
            )

    return Vim()


@functools.lru_cache(maxsize=1)
def _descriptions() -> Any:
    """Return the service descriptions this process has loaded, as loading takes seconds."""
    from oslo_vmware import service

    return service.MemoryCache()


def _check(response: requests.Response, accepted: tuple[int, ...]) -> None:
    if response.status_code not in accepted:
        raise requests.HTTPError(response=response)
