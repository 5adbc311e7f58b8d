# SPDX-License-Identifier: Apache-2.0
"""The stores in the health check of a service: a plug-in for oslo.middleware.

To load it, add ``glance_store`` to ``[healthcheck] backends``. The extra ``healthcheck`` installs
oslo.middleware.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from oslo_config import cfg
from oslo_middleware.healthcheck import pluginbase

from glance_store import registry
from glance_store.health import Health, Watch
from glance_store.i18n import _
from glance_store.store_options import register_each

LOG = logging.getLogger(__name__)

GROUP = "healthcheck"

OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "glance_store_stores",
        default=[],
        help=_(
            "Stores that must be healthy for the service to be healthy: identifiers, or driver "
            "names if ``enabled_backends`` is not set. Default: all. List only stores the service "
            "cannot do without, because a load balancer sends nothing to an unhealthy service."
        ),
    ),
    cfg.FloatOpt(
        "glance_store_timeout",
        default=5.0,
        min=0.1,
        help=_(
            "Seconds a store may take to answer. No health check request waits longer. Keep it "
            "below the timeout of whatever sends these requests."
        ),
    ),
    cfg.FloatOpt(
        "glance_store_cache",
        default=10.0,
        min=0.0,
        help=_(
            "Seconds the answer of a store is cached. The first request after that checks the "
            "store again."
        ),
    ),
]


class StoresHealthcheck(pluginbase.HealthcheckBaseExtension):
    """Tells whether the stores of this process are healthy.

    :param oslo_conf: the configuration
    :param conf: options from the service's api-paste.ini, which take precedence
    """

    def __init__(self, oslo_conf: Any, conf: dict[str, Any]) -> None:
        super().__init__(oslo_conf, conf)
        register_each(oslo_conf, OPTS, GROUP)
        self._names: list[str] = self._conf_get("glance_store_stores")
        self._make_watch = functools.partial(
            Watch,
            limit=self._conf_get("glance_store_timeout"),
            keep=self._conf_get("glance_store_cache"),
        )
        self._watches: dict[str, Watch] = {}
        self._sick: dict[str, str] = {}  # unhealthy stores, and why

    def healthcheck(self, server_port: int) -> Any:
        """Return whether all required stores are healthy.

        :param server_port: port of the request
        """
        failures = registry.failures()
        known = [*registry.loaded_stores(), *failures]
        found: dict[str, Health] = {}
        questions = {}
        # Ask all before waiting for the first.
        for name in self._names or known:
            if name in failures:
                found[name] = Health(False, f"not loaded: {failures[name]}", None)
            elif name not in known:
                found[name] = Health(False, "there is no such store", None)
            else:
                watch = self._watches.get(name) or self._watches.setdefault(
                    name, self._make_watch(functools.partial(registry.ready_store, name))
                )
                questions[name] = watch, watch.ask()
        found.update({name: watch.health(asked) for name, (watch, asked) in questions.items()})
        for name, one in found.items():
            self._log(name, one)
        return _result(found)

    def _log(self, name: str, health: Health) -> None:
        """Log once when a store becomes unhealthy or recovers."""
        if not health.healthy and name not in self._sick:
            self._sick[name] = health.text
            LOG.error("Store %s is unhealthy: %s", name, health.text)
        elif health.healthy and self._sick.pop(name, None) is not None:
            LOG.info("Store %s is healthy again: %s", name, health.text)


def _result(found: dict[str, Health]) -> Any:
    details = "; ".join(f"{name}: {one.text}" for name, one in found.items())
    sick = [name for name, one in found.items() if not one.healthy]
    if sick:
        reason = f"unhealthy stores: {', '.join(sick)}"
    else:
        reason = "OK" if found else "no store is loaded"
    # `reason` is public; what is wrong goes only into `details`.
    return pluginbase.HealthcheckResult(
        available=bool(found) and not sick, reason=reason, details=details
    )
