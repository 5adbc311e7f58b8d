# SPDX-License-Identifier: Apache-2.0
"""``python -m glance_store.cli`` is the command `glance-store`."""

from __future__ import annotations

import sys

from glance_store.cli.main import main

sys.exit(main())
