"""How much work waits for the one core that there is."""

HTTP_SECONDS = 30e-6
"""What a request costs beside its prediction, about; it matters only where that costs less."""
WEIGHT = 0.05
"""Of the last request in the moving average."""


class Backlog:
    """Says when the requests that wait would take longer than anybody should wait.

    By an average of what requests have cost of processor time, and not by the clock: when the machine gives the core to
    somebody else for a while, the requests that were waiting have not become more.
    """

    def __init__(self, most_seconds: float) -> None:
        self._most = most_seconds
        self._seconds = 0.0

    def took(self, seconds: float) -> None:
        """Take note of the processor time that a prediction took."""
        self._seconds += WEIGHT * (seconds - self._seconds)

    def is_full(self, requests: int) -> bool:
        """Whether a request that comes after so many others would wait too long. The first one never does."""
        return requests > 0 and requests * (self._seconds + HTTP_SECONDS) > self._most
