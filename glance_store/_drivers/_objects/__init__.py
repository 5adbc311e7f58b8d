# SPDX-License-Identifier: Apache-2.0
"""What object-store drivers share: ownership marks, range requests, request bodies, errors."""
