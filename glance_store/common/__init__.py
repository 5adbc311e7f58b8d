# SPDX-License-Identifier: Apache-2.0
"""What drivers and their users share."""
