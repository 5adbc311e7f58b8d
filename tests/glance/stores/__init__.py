# SPDX-License-Identifier: Apache-2.0
"""The stores that a Glance is tested with, looked at past Glance and past the library."""
