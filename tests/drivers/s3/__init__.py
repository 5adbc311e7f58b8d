# SPDX-License-Identifier: Apache-2.0
"""Tests of the S3 store on real servers."""
