# SPDX-License-Identifier: Apache-2.0
"""Tests of the Cinder store, on a real Cinder with volumes on Ceph and on NFS."""
