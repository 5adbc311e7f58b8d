# SPDX-License-Identifier: Apache-2.0
"""Tests of the Swift store, on a real Swift with a real Keystone, and on radosgw."""
