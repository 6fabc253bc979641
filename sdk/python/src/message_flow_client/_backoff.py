"""How long to wait before a connection is tried again."""

import random
from collections.abc import Callable


class Backoff:
    """Exponential backoff with full jitter, so that a thousand services that lost the same router do
    not come back in the same moment. Times are in seconds."""

    def __init__(
        self, first: float = 0.2, longest: float = 10.0, uniform: Callable[[], float] = random.random
    ) -> None:
        self.first, self.longest, self._uniform = first, longest, uniform
        self._attempt = 0

    def next(self) -> float:
        """Seconds until the next attempt: anywhere between 0 and a ceiling that doubles each time."""
        ceiling = min(self.longest, self.first * 2 ** min(self._attempt, 30))
        self._attempt += 1
        return self._uniform() * ceiling

    def reset(self) -> None:
        """A connection has proved good: the next loss begins anew."""
        self._attempt = 0
