# SPDX-License-Identifier: Apache-2.0
"""When bytes leave a slow link that they have entered. Knows no clock and no socket."""

from __future__ import annotations

MEBIBYTE = 1024 * 1024

# A piece takes this long on the link: short enough to be smooth, long enough not to cost much.
_PIECE_SECONDS = 0.005
_LARGEST_PIECE = 256 * 1024
# What may wait on a link: as much as it can carry in its latency, and enough for a late wake-up.
_WAKE_UP_SECONDS = 0.1
_FAST = 1024 * MEBIBYTE
_MOST_WAITING = 32 * MEBIBYTE


class Link:
    """One direction of one connection.

    Bytes wait until those before them have left, take the time that the bandwidth asks for, and
    arrive after the latency. The times are absolute: who looks late does not slow the link down,
    and an idle link saves nothing up.

    :param latency: seconds, one way
    :param bandwidth: bytes in a second; None: without limit
    :param opens: time before which nothing is carried
    """

    def __init__(
        self, latency: float = 0.0, bandwidth: float | None = None, opens: float = 0.0
    ) -> None:
        self.latency = latency
        self.bandwidth = bandwidth
        self._free = opens

    @property
    def instant(self) -> bool:
        """Whether bytes arrive as soon as they are sent."""
        return not self.latency and self.bandwidth is None

    @property
    def piece(self) -> int:
        """Bytes to schedule at once at most."""
        if self.bandwidth is None:
            return _LARGEST_PIECE
        return max(1, min(_LARGEST_PIECE, int(self.bandwidth * _PIECE_SECONDS)))

    @property
    def capacity(self) -> int:
        """Bytes that may wait; the sender has to wait when there are more."""
        carried = (self.bandwidth or _FAST) * (self.latency + _WAKE_UP_SECONDS)
        if self.bandwidth is None:
            carried = _FAST * self.latency
        return max(2 * self.piece, min(int(carried), _MOST_WAITING))

    def due(self, arrival: float, size: int) -> float:
        """Return when bytes leave the link that came to it after all others so far.

        :param arrival: time, in seconds of any clock that does not go back
        :param size: how many bytes
        """
        self._free = max(arrival, self._free)
        if self.bandwidth is not None:
            self._free += size / self.bandwidth
        return self._free + self.latency
