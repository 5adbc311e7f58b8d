# SPDX-License-Identifier: Apache-2.0
"""The `glance-store` command, run as an operator runs it."""
