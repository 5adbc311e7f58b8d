# SPDX-License-Identifier: Apache-2.0
"""Runs the `glance-store` command as ``python -m glance_store.cli``."""

from __future__ import annotations

import sys

from glance_store.cli.main import main

sys.exit(main())
