# SPDX-License-Identifier: Apache-2.0
"""What goes wrong outside of the library: networks, servers and processes that fail."""
