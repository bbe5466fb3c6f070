"""The one progress type: whoever works long reports how many of how many parts are done."""

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (done, in all)."""
StageProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with (name of the stage, done, in all), where work has several stages."""
