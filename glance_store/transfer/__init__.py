# SPDX-License-Identifier: Apache-2.0
"""The transfer engine: moves the bytes of an image between a source and a backend.

It knows no backend, no configuration and no image service. Two small interfaces
(`interface.ImageWriter`, `interface.ImageReader`) are all that it asks of a backend.
"""
