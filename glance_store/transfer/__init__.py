# SPDX-License-Identifier: Apache-2.0
"""The transfer engine: moves the bytes of an image between a source and a backend.

It knows no backend, no configuration and no image service. All it needs of a backend are two small
interfaces, `interface.ImageWriter` and `interface.ImageReader`.
"""
