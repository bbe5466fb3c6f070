"""The U-Net as a processor computes it fastest: the generator's own weights in other, larger operations.

PyTorch's transposed convolution with one output channel, the last of the network, took four fifths of a narrow
network's time. Where output channels are few, the same sums are taken here as a convolution of all eight neighbouring
voxels at once. At the innermost level seven eighths of a kernel meet nothing but padding; the rest is a matrix product.
Norm and activation keep the channels innermost, and what goes on beside the level below is written once. The result is
the generator's to a hundred thousandth; training, GPUs and other precisions use the generator itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from twin_scanner.models.networks import NEGATIVE_SLOPE, UNetGenerator

LAYOUT: Final = torch.channels_last_3d
EIGHTHS: Final = tuple(product((0, 1), repeat=3))
"""Which of the two voxels along D, H and W that a doubling makes of one."""
TAPS: Final = ((3, 1), (2, 0))
"""What of a kernel of 4 falls on the voxel before and on the voxel itself, and on the voxel itself and the next."""
INNER: Final = (slice(None), slice(None), *[slice(1, 3)] * 3)
"""What of a kernel of 4 falls on voxels where one voxel is halved from two along each axis, or doubled to two."""
FEW: Final = 8
"""Output channels up to which a convolution of all eighths is quicker than the transposed one."""


class UNetArithmetic(nn.Module):
    """What a U-Net says of float32 windows, from its weights in other layouts."""

    def __init__(self, network: UNetGenerator) -> None:
        """Takes the generator as it stands; later changes of its weights are not seen."""
        super().__init__()
        self._encoder = network.encoder
        self._levels = [_Weights.of(layers) for layers in network.layers_of_levels()]
        self._doublings = [_Doubling(level.up, level.up_bias) for level in self._levels]
        self._doublings[-1].take_one_voxel()
        self._to_one_voxel = self._levels[-1].down[INNER].permute(2, 3, 4, 1, 0).flatten(0, 3).contiguous()

    def kept(self) -> Iterator[Tensor]:
        """The weights as they are computed with; most are views of the generator's own."""
        yield self._to_one_voxel
        for weights, double in zip(self._levels, self._doublings, strict=True):
            yield from (weights.down, weights.up)
            yield from double.kept()

    def forward(self, ct: Tensor, context: Tensor | None = None) -> Tensor:
        """The PET (N, 1, 32, 32, 32) of a batch of CT windows and their contexts, (N, channels, 32, 32, 32) each."""
        values, beside = ct, []
        for weights in self._levels[:-1]:
            values = weights.halved(values)
            both = torch.empty(len(values), 2 * values.shape[1], *values.shape[2:], memory_format=LAYOUT)
            torch.clamp_min(values, 0.0, out=both[:, : values.shape[1]])
            beside.append(both)
            values = functional.leaky_relu_(values, NEGATIVE_SLOPE)
        values = self._one_voxel(values)
        if self._encoder is not None:
            values = torch.cat([values, self._encoder(context)], 1)
        values = values.relu_()
        for weights, double in zip(reversed(self._levels[1:]), reversed(self._doublings[1:]), strict=True):
            both = beside.pop()
            up = weights.normed_up(double(values))
            torch.clamp_min(up, 0.0, out=both[:, up.shape[1] :])
            values = both
        return torch.sigmoid_(self._doublings[0](values))

    def _one_voxel(self, values: Tensor) -> Tensor:
        """(N, in, 2, 2, 2) to (N, out, 1, 1, 1) by the innermost convolution, which has no norm after it."""
        products, bias = values.permute(0, 2, 3, 4, 1).flatten(1) @ self._to_one_voxel, self._levels[-1].down_bias
        return (products if bias is None else products + bias)[..., None, None, None]


@dataclass(frozen=True, eq=False)
class _Weights:
    """One level's weights: of its convolutions down and up, and of the norms after them where there are any."""

    down: Tensor
    down_bias: Tensor | None
    down_norm: nn.InstanceNorm3d | None
    up: Tensor
    up_bias: Tensor | None
    up_norm: nn.InstanceNorm3d | None

    @classmethod
    def of(cls, layers: Sequence[nn.Module]) -> "_Weights":
        """Of a level's layers; the outermost level has no norm, and the innermost one has it only on the way up."""
        (down,) = (layer for layer in layers if isinstance(layer, nn.Conv3d))
        (up,) = (layer for layer in layers if isinstance(layer, nn.ConvTranspose3d))
        norms = [layer for layer in layers if isinstance(layer, nn.InstanceNorm3d)]
        weight = down.weight.contiguous(memory_format=LAYOUT)
        down_norm, up_norm = norms[0] if len(norms) > 1 else None, norms[-1] if norms else None
        return cls(weight, down.bias, down_norm, up.weight, up.bias, up_norm)

    def halved(self, values: Tensor) -> Tensor:
        """A new tensor of half the edge, normed."""
        image = values.contiguous(memory_format=LAYOUT)
        return _normed(functional.conv3d(image, self.down, self.down_bias, 2, 1), self.down_norm)

    def normed_up(self, values: Tensor) -> Tensor:
        """What was doubled, normed."""
        return _normed(values, self.up_norm)


def _normed(values: Tensor, norm: nn.InstanceNorm3d | None) -> Tensor:
    """A group of one channel is an instance; only the norm of groups leaves the channels innermost."""
    if norm is None:
        return values
    return functional.group_norm(values, values.shape[1], norm.weight, norm.bias, norm.eps)


class _Doubling:
    """A transposed convolution with a kernel of 4, a stride of 2 and a padding of 1, as its sizes make it quickest."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """``weight`` (in, out, 4, 4, 4) as PyTorch has it."""
        self._weight, self._bias, self._out = weight, bias, weight.shape[1]
        self._of_eighths = _of_eighths(weight) if self._out <= FEW else None
        self._of_one_voxel: Tensor | None = None

    def take_one_voxel(self) -> None:
        """From now on images of one voxel."""
        self._of_one_voxel = self._weight[INNER].permute(0, 2, 3, 4, 1).flatten(1).contiguous()

    def kept(self) -> Iterator[Tensor]:
        """Every layout of the weights."""
        yield from (one for one in (self._of_one_voxel, self._of_eighths) if one is not None)

    def __call__(self, values: Tensor) -> Tensor:
        """(N, in, n, n, n) to (N, out, 2 n, 2 n, 2 n), channels innermost."""
        if self._of_one_voxel is not None:
            eight = (values.flatten(1) @ self._of_one_voxel).view(len(values), 2, 2, 2, self._out)
            doubled = eight.permute(0, 4, 1, 2, 3)
        elif self._of_eighths is not None:
            doubled = self._by_eighths(values, self._of_eighths)
        else:
            return functional.conv_transpose3d(values, self._weight, self._bias, 2, 1)
        return doubled if self._bias is None else doubled.add_(self._bias[:, None, None, None])

    def _by_eighths(self, values: Tensor, weight: Tensor) -> Tensor:
        """Voxels before and after each border of two voxels, of which each eighth takes its own."""
        n = values.shape[2]
        found = functional.conv3d(values, weight, padding=1)
        doubled = torch.empty(len(values), self._out, 2 * n, 2 * n, 2 * n, memory_format=LAYOUT)
        for number, (d, h, w) in enumerate(EIGHTHS):
            channels = slice(number * self._out, (number + 1) * self._out)
            doubled[:, :, d::2, h::2, w::2] = found[:, channels, d : d + n, h : h + n, w : w + n]
        return doubled


def _of_eighths(weight: Tensor) -> Tensor:
    """A kernel (in, out, 4, 4, 4) of a transposed convolution as one of a convolution (8 out, in, 2, 2, 2)."""
    parts: Sequence[Tensor] = [
        weight[:, :, TAPS[d]][:, :, :, TAPS[h]][:, :, :, :, TAPS[w]].transpose(0, 1) for d, h, w in EIGHTHS
    ]
    return torch.cat(list(parts)).contiguous(memory_format=LAYOUT)
