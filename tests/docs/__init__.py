# SPDX-License-Identifier: Apache-2.0
"""The documentation: what it shows works, and it is what the tools make."""
