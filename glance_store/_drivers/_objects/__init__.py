# SPDX-License-Identifier: Apache-2.0
"""What object stores have in common: marks of ownership, answers to ranges, bodies, failures."""
