# SPDX-License-Identifier: Apache-2.0
"""Tests of the rbd driver on a real cluster."""
