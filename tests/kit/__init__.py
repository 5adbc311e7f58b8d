# SPDX-License-Identifier: Apache-2.0
"""The conformance kit, applied to the drivers of the library, and to broken ones."""
