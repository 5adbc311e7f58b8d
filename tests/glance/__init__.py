# SPDX-License-Identifier: Apache-2.0
"""A real Glance on top of the library, tested through its HTTP API."""
