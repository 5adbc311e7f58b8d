# SPDX-License-Identifier: Apache-2.0
"""What is around the library: the README, the pages on installing and upgrading, the packages."""
