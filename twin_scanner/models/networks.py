"""The 3D networks: generators from CT to PET (U-Net, ResNet-9) and the PatchGAN discriminator; no files, no DICOM."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

WINDOW = 32
"""Edge of the cube, in voxels, that a generator reads and writes (paper section III-B)."""
LEVELS = 5
"""Halvings from 32 voxels to the 1-voxel bottleneck."""
WIDEST = 8
"""Channels grow to this multiple of ``features`` and no further (Isola et al. 2017, section 6.1.1)."""
INITIAL_STANDARD_DEVIATION = 0.02
"""Weights start from a normal distribution this wide (Isola et al. 2017, section 6.2)."""
INITIAL_LOGIT = -3.0
"""The last bias: the untrained generator says 0.05 of model space (about SUV 1), not 0.5 (SUV 10)."""
RESIDUAL_BLOCKS = 9
"""Zhu et al. 2017, section 7.2; of two convolutions each, at a quarter of the input's edge."""
NEGATIVE_SLOPE = 0.2


class UNetGenerator(nn.Module):
    """pix2pix's U-Net (Isola et al. 2017, section 6.1.1, skip connections at every level) in three dimensions.

    Input: (N, ``channels``, 32, 32, 32), output: (N, 1, 32, 32, 32), in model space [0, 1]. ``features`` is the width
    of the first level. Every window stands alone: InstanceNorm instead of batch statistics, no dropout. The last
    convolution and the output are float32, whatever the precision of the rest. With ``context`` the innermost level
    also sees what an encoder makes of the body around the window; without it the network is the paper's.
    """

    def __init__(
        self, features: int, initial_logit: float = INITIAL_LOGIT, *, channels: int = 1, context: bool = False
    ) -> None:
        super().__init__()
        widths = [features * min(2**level, WIDEST) for level in range(LEVELS)]
        encoder = _ContextEncoder(features, channels) if context else None
        block = _Level(widths[-2], widths[-1], context=0 if encoder is None else encoder.width)
        for outer, inner in reversed(list(pairwise(widths[:-1]))):
            block = _Level(outer, inner, block)
        self.levels = _Level(channels, widths[0], block, outermost=True)
        self.encoder = encoder
        self.apply(_initialise)
        nn.init.constant_(self.levels.last_bias(), initial_logit)

    def forward(self, ct: Tensor, context: Tensor | None = None) -> Tensor:
        """The PET (N, 1, 32, 32, 32) of a batch of CT windows and their contexts, (N, channels, 32, 32, 32) each."""
        surroundings = None if self.encoder is None else self.encoder(context)
        return _activated(self.levels(ct, surroundings))

    def layers_of_levels(self) -> Iterator[list[nn.Module]]:
        """The layers of each level, without those of the level below, from the outermost level inwards."""
        level: _Level | None = self.levels
        while level is not None:
            yield [layer for layer in level.layers if not isinstance(layer, _Level)]
            level = next((layer for layer in level.layers if isinstance(layer, _Level)), None)


class _ContextEncoder(nn.Module):
    """The body around a window, 32 coarse voxels an edge, as one voxel of ``width`` features.

    Half as wide as the U-Net's way down, and normalised where that is: so it adds an eighth to a window's time.
    """

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        widths = [max(1, features * min(2**level, WIDEST) // 2) for level in range(LEVELS)]
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(zip([channels, *widths[:-1]], widths, strict=True)):
            bare = level in (0, LEVELS - 1)
            layers.append(nn.Conv3d(before, after, 4, stride=2, padding=1, bias=bare))
            if not bare:
                layers.append(nn.InstanceNorm3d(after, affine=True))
            if level < LEVELS - 1:
                layers.append(nn.LeakyReLU(NEGATIVE_SLOPE))
        self.width = widths[-1]
        self.layers = nn.Sequential(*layers)

    def forward(self, context: Tensor) -> Tensor:
        """(N, channels, 32, 32, 32) to (N, width, 1, 1, 1)."""
        features: Tensor = self.layers(context)
        return features


class _Join(nn.Module):
    """The context's features beside the bottleneck's, (N, features, 1, 1, 1) each."""

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        return torch.cat([values, context], 1)


class _Level(nn.Module):
    """One level of the U: halve, go through the level below, double, and concatenate the input with the result.

    The innermost level, which has none below, lays ``context`` features beside its own where there are any.
    """

    def __init__(
        self, outer: int, inner: int, below: "_Level | None" = None, *, outermost: bool = False, context: int = 0
    ) -> None:
        super().__init__()
        innermost = below is None
        bare = outermost or innermost
        down = nn.Conv3d(outer, inner, 4, stride=2, padding=1, bias=bare)
        doubled, made = inner + context if innermost else 2 * inner, 1 if outermost else outer
        up = nn.ConvTranspose3d(doubled, made, 4, stride=2, padding=1, bias=outermost)
        layers: list[nn.Module] = [] if outermost else [nn.LeakyReLU(NEGATIVE_SLOPE)]
        layers.append(down)
        if not bare:
            layers.append(nn.InstanceNorm3d(inner, affine=True))
        if below is not None:
            layers.append(below)
        if context:
            layers.append(_Join())
        layers += [nn.ReLU(), up]
        if not outermost:
            layers.append(nn.InstanceNorm3d(outer, affine=True))
        self.layers = nn.Sequential(*layers)
        self.outermost = outermost

    @property
    def last(self) -> nn.Module | None:
        """The network's last convolution; only the outermost level has it."""
        return self.layers[-1] if self.outermost else None

    def forward(self, values: Tensor, context: Tensor | None = None) -> Tensor:
        output = values
        for layer in self.layers:
            if isinstance(layer, _Level | _Join):
                output = layer(output, context)
            else:
                output = _in_float32(layer, output) if layer is self.last else layer(output)
        return output if self.outermost else torch.cat([values, output], 1)

    def last_bias(self) -> Tensor:
        """The bias of the last convolution; only the outermost level has one."""
        bias = self.layers[-1].bias
        assert isinstance(bias, Tensor)
        return bias


class ResNetGenerator(nn.Module):
    """CycleGAN's generator of nine residual blocks (Zhu et al. 2017, section 7.2) in three dimensions.

    Input: (N, ``channels``, 32, 32, 32), output: (N, 1, 32, 32, 32), in model space [0, 1]. ``features`` is the width
    of the first layer; the blocks are four times as wide, on 8 voxels an edge. Convolutions see a mirrored border, not
    zeros. As in the U-Net: InstanceNorm, no dropout, the last convolution and the output in float32.
    """

    def __init__(self, features: int, initial_logit: float = INITIAL_LOGIT, *, channels: int = 1) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.ReflectionPad3d(3), *_normed(nn.Conv3d(channels, features, 7, bias=False))]
        for width in (features, 2 * features):
            parts += _normed(nn.Conv3d(width, 2 * width, 3, stride=2, padding=1, bias=False))
        parts += [_ResidualBlock(4 * features) for _ in range(RESIDUAL_BLOCKS)]
        for width in (4 * features, 2 * features):
            up = nn.ConvTranspose3d(width, width // 2, 3, stride=2, padding=1, output_padding=1, bias=False)
            parts += _normed(up)
        last = nn.Conv3d(features, 1, 7)
        self.layers = nn.Sequential(*parts, nn.ReflectionPad3d(3), last)
        self.apply(_initialise)
        assert last.bias is not None
        nn.init.constant_(last.bias, initial_logit)

    def forward(self, ct: Tensor) -> Tensor:
        """The PET (N, 1, 32, 32, 32) of a batch of CT windows (N, channels, 32, 32, 32), in model space."""
        return _activated(_in_float32(self.layers[-1], self.layers[:-1](ct)))


class _ResidualBlock(nn.Module):
    """What two convolutions add to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad3d(1),
            *_normed(nn.Conv3d(width, width, 3, bias=False)),
            nn.ReflectionPad3d(1),
            *_normed(nn.Conv3d(width, width, 3, bias=False))[:-1],
        )

    def forward(self, values: Tensor) -> Tensor:
        added: Tensor = self.layers(values)
        return values + added


def _normed(convolution: nn.Conv3d | nn.ConvTranspose3d) -> list[nn.Module]:
    """A convolution, its norm and its activation."""
    return [convolution, nn.InstanceNorm3d(convolution.out_channels, affine=True), nn.ReLU()]


def _in_float32(layer: nn.Module, values: Tensor) -> Tensor:
    """A layer in its weights' own precision, which is float32: bfloat16 would round a logit by up to 1 %."""
    with torch.autocast(values.device.type, enabled=False):
        output: Tensor = layer(values.to(next(layer.parameters()).dtype))
        return output


def _activated(logits: Tensor) -> Tensor:
    """Logits to model space [0, 1], in float32."""
    with torch.autocast(logits.device.type, enabled=False):
        return torch.sigmoid(logits.float())


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017, section 3.2.2) in three dimensions: one logit for each overlapping patch.

    Input: (N, ``channels``, 32, 32, 32) in model space: CT and PET side by side (Pix2Pix), or one of them (CycleGAN).
    With 2 layers: (N, 1, 6, 6, 6) logits, each of which sees 34 voxels; deeper ones would see mostly padding.
    """

    def __init__(self, features: int, layers: int = 2, channels: int = 2) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv3d(channels, features, 4, stride=2, padding=1), nn.LeakyReLU(NEGATIVE_SLOPE)]
        width = features
        for layer in range(1, layers + 1):
            wider = features * min(2**layer, WIDEST)
            stride = 2 if layer < layers else 1
            parts += [
                nn.Conv3d(width, wider, 4, stride=stride, padding=1, bias=False),
                nn.InstanceNorm3d(wider, affine=True),
                nn.LeakyReLU(NEGATIVE_SLOPE),
            ]
            width = wider
        parts.append(nn.Conv3d(width, 1, 4, padding=1))
        self.layers = nn.Sequential(*parts)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Logits: higher where the images look real."""
        logits: Tensor = self.layers(images)
        return logits


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.normal_(module.weight, 0.0, INITIAL_STANDARD_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.InstanceNorm3d):
        nn.init.normal_(module.weight, 1.0, INITIAL_STANDARD_DEVIATION)
        nn.init.zeros_(module.bias)
