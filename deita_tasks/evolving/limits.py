"""Requests and tokens a minute, and a cap on the tokens that a run pays for."""

from __future__ import annotations

import threading
import time
from collections import deque

from deita_tasks.errors import UsageError
from deita_tasks.models.stopping import STOP_INTERVAL, raise_if_stopped

MINUTE = 60.0  # seconds


class _Booking:
    """A request of the last minute: when it was sent, and its tokens, first an estimate."""

    def __init__(self, sent: float, tokens: int) -> None:
        self.sent = sent
        self.tokens = tokens


class RateLimit:
    """Keeps several threads below the requests and tokens that a server allows in any minute."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        self._requests = requests
        self._tokens = tokens
        self._lock = threading.Lock()
        self._bookings: deque[_Booking] = deque()

    def wait(self, tokens: int) -> _Booking:
        """Wait until a request of about `tokens` fits, and count it. Can be stopped.

        A request above the limit by itself is sent when no other has been for a minute.
        """
        while True:
            raise_if_stopped()
            with self._lock:
                pause = self._pause(tokens)
                if pause <= 0:
                    booking = _Booking(time.monotonic(), tokens)
                    self._bookings.append(booking)
                    return booking
            time.sleep(min(pause, STOP_INTERVAL))

    def correct(self, booking: _Booking, tokens: int) -> None:
        """Count a request with the tokens that the server names."""
        with self._lock:
            booking.tokens = tokens

    def _pause(self, tokens: int) -> float:
        """Return the seconds until the oldest request no longer counts; 0 if there is room."""
        now = time.monotonic()
        while self._bookings and now - self._bookings[0].sent >= MINUTE:
            self._bookings.popleft()
        used = sum(booking.tokens for booking in self._bookings)
        is_full = self._requests is not None and len(self._bookings) >= self._requests
        is_over = self._tokens is not None and used + tokens > self._tokens
        if not self._bookings or not (is_full or is_over):
            return 0.0
        return self._bookings[0].sent + MINUTE - now


class Spending:
    """What a run has paid for, in tokens, and the most it may pay for."""

    def __init__(self, cap: int | None) -> None:
        self._cap = cap
        self._changed = threading.Condition()
        self._reserved = 0
        self.spent = 0

    def reserve(self, tokens: int) -> None:
        """Set tokens aside for a request; wait for those under way if they leave no room.

        Raises UsageError if the request might go beyond the cap by itself. Can be stopped.
        """
        while True:
            raise_if_stopped()
            with self._changed:
                if self._cap is None or self.spent + self._reserved + tokens <= self._cap:
                    self._reserved += tokens
                    return
                if self.spent + tokens > self._cap:
                    raise UsageError(
                        f"token_cap = {self._cap:,}: {self.spent:,} tokens are paid for, and the "
                        f"next request may take {tokens:,}; run again with a greater cap: every "
                        "reply is kept, and not paid for again"
                    )
                self._changed.wait(STOP_INTERVAL)

    def settle(self, reserved: int, tokens: int) -> None:
        """Replace what was set aside for a request by what it took."""
        with self._changed:
            self._reserved -= reserved
            self.spent += tokens
            self._changed.notify_all()
