# SPDX-License-Identifier: Apache-2.0
"""Tests of the http store, on real web servers."""
