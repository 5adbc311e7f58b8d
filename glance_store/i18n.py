# SPDX-License-Identifier: Apache-2.0
"""Translation of messages that an operator reads."""

from __future__ import annotations

import oslo_i18n

DOMAIN = "glance_store"

_translators = oslo_i18n.TranslatorFactory(domain=DOMAIN)

_ = _translators.primary
