# SPDX-License-Identifier: Apache-2.0
"""The stores in the health check of a service: a plug-in of oslo.middleware.

It is loaded where ``[healthcheck] backends`` names ``glance_store``; oslo.middleware comes with the
extra ``healthcheck``.
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
            "Stores that must be well for the service to be: identifiers, or drivers without "
            "``enabled_backends``. Default: all. Name those without which the service is of no "
            "use, since a load balancer sends nothing to a service that is not well."
        ),
    ),
    cfg.FloatOpt(
        "glance_store_timeout",
        default=5.0,
        min=0.1,
        help=_(
            "Seconds that a store may take to say how it is. No request of the health check waits "
            "longer. Keep it below the time-out of what asks."
        ),
    ),
    cfg.FloatOpt(
        "glance_store_cache",
        default=10.0,
        min=0.0,
        help=_(
            "Seconds for which the answer of a store is good. It is asked again by the first "
            "request after that."
        ),
    ),
]


class StoresHealthcheck(pluginbase.HealthcheckBaseExtension):
    """Tells whether the stores of this process are well.

    :param oslo_conf: the configuration
    :param conf: options from the service's api-paste.ini, which win
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
        self._sick: dict[str, str] = {}  # stores that are not well, and why

    def healthcheck(self, server_port: int) -> Any:
        """Return whether all stores that count are well.

        :param server_port: port of the request
        """
        failures = registry.failures()
        known = [*registry.loaded_stores(), *failures]
        found: dict[str, Health] = {}
        questions = {}
        # All are asked before one is waited for.
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
        """Tell of a store that has become well or not, once."""
        if not health.healthy and name not in self._sick:
            self._sick[name] = health.text
            LOG.error("Store %s is not well: %s", name, health.text)
        elif health.healthy and self._sick.pop(name, None) is not None:
            LOG.info("Store %s is well again: %s", name, health.text)


def _result(found: dict[str, Health]) -> Any:
    details = "; ".join(f"{name}: {one.text}" for name, one in found.items())
    sick = [name for name, one in found.items() if not one.healthy]
    if sick:
        reason = f"stores that are not well: {', '.join(sick)}"
    else:
        reason = "OK" if found else "no store is loaded"
    # What is wrong is for those alone who may see details.
    return pluginbase.HealthcheckResult(
        available=bool(found) and not sick, reason=reason, details=details
    )
