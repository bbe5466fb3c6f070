"""What every check's tests need."""

from collections.abc import Callable

import pytest


@pytest.fixture
def closed_port(free_port: Callable[[], int]) -> int:
    """A port on which nothing listens."""
    return free_port()
