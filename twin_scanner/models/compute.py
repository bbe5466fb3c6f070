"""On what and in which precision networks compute, as plain values: configuration, requests and results name it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

ComputePrecision = Literal["float32", "bfloat16", "float16"]
DEVICES: Final = r"auto|cpu|cuda(:\d+)?"
"""``auto`` is the first GPU where there is one, else the processor; ``cuda:1`` is the second GPU."""
BFLOAT16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What Linux calls a processor's instructions for bfloat16; without one it computes slower than in float32."""


@dataclass(frozen=True)
class Compute:
    """A device (``DEVICES``) and the precision of the networks; sums and the last activation are always float32."""

    device: str = "cpu"
    precision: ComputePrecision = "float32"


PROCESSOR: Final = Compute()


def processor_has_bfloat16(flags: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for bfloat16, as far as the system says."""
    try:
        return not BFLOAT16_FLAGS.isdisjoint(flags.read_text("utf-8").split())
    except OSError:
        return False
