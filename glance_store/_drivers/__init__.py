# SPDX-License-Identifier: Apache-2.0
"""The drivers, one package each. Only entry points name them; nothing else imports them."""
