# SPDX-License-Identifier: Apache-2.0
"""The transfer engine, tested on backends that live in memory."""
