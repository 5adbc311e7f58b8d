# SPDX-License-Identifier: Apache-2.0
"""The `glance-store` command: the stores of an image service, from a terminal or a script."""
