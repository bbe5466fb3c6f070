"""A wall clock and a monotonic clock that a test drives, together or against each other."""

from datetime import UTC, datetime, timedelta


class Clock:
    """Calling it reads the wall clock."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
        self.seconds = 1000.0

    def __call__(self) -> datetime:
        return self.now

    def monotonic_s(self) -> float:
        """The monotonic clock."""
        return self.seconds

    def pass_s(self, seconds: float) -> None:
        """Time passes on both."""
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds

    def jump_s(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.now += timedelta(seconds=seconds)
