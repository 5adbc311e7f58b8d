# SPDX-License-Identifier: Apache-2.0
"""The `glance-store` command: manages an image service's stores from a terminal or a script."""
