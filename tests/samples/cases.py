"""Cases of one test in two suites: some run with every `make test`, the others with `make test-long`."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick_and_long(quick: Iterable[Any], rest: Iterable[Any]) -> list[Any]:
    """Values for ``pytest.mark.parametrize``; a case of several arguments is a tuple."""
    packed = (case if isinstance(case, tuple) else (case,) for case in rest)
    return [*quick, *(pytest.param(*case, marks=pytest.mark.long) for case in packed)]
