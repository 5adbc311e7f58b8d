# SPDX-License-Identifier: Apache-2.0
"""The benchmark: this repository against the reference release, in turn, in one run."""
