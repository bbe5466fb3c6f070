"""The generator and the discriminator: sizes, precision, and independence of a window from its batch."""

import math

import pytest
import torch
from torch import nn

from twin_scanner.models.networks import RESIDUAL_BLOCKS, WINDOW, PatchDiscriminator, ResNetGenerator, UNetGenerator

pytestmark = pytest.mark.unit


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def windows(count: int, channels: int = 1) -> torch.Tensor:
    return torch.rand((count, channels, *(WINDOW,) * 3), generator=torch.Generator().manual_seed(5))


def receptive_field(network: nn.Module) -> int:
    """Edge of the input cube that one output voxel sees, by the usual recursion over kernel and stride."""
    edge, jump = 1, 1
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            edge += (layer.kernel_size[0] - 1) * jump
            jump *= layer.stride[0]
    return edge


def test_four_generators_of_eight_features_take_8_3_mb_in_half_precision() -> None:
    """By hand: 64 weights a kernel, 1,041,920 in ten convolutions, and a few hundred of norms and biases."""
    convolutions = 64 * (8 + 128 + 512 + 2048 + 4096 + 4096 + 128 * 32 + 64 * 16 + 32 * 8 + 16)
    generator = UNetGenerator(8)
    assert parameters(generator) - convolutions == 537
    assert round(4 * 2 * parameters(generator) / 1e6, 1) == 8.3


def test_the_generator_of_the_reference_size_has_66_6_million_weights() -> None:
    """pix2pix's unet_32 with 64 features in three dimensions (reference/ml.md)."""
    with torch.device("meta"):
        assert round(parameters(UNetGenerator(64)) / 1e6, 1) == 66.6


def test_the_bottleneck_is_one_voxel_and_stays_without_norm() -> None:
    edges: list[int] = []
    network = UNetGenerator(2)
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_hook(lambda *call: edges.append(call[2].shape[-1]))
        if isinstance(layer, nn.InstanceNorm3d):
            layer.register_forward_pre_hook(lambda _, values: edges.append(-values[0].shape[-1]))
    network.train()(windows(1))
    assert [edge for edge in edges if edge > 0] == [16, 8, 4, 2, 1]
    assert -1 not in edges


WEIGHT_NAMES = {
    1: ["1.weight", "2.weight", "2.bias", "5.weight", "6.weight", "6.bias"],
    2: ["1.weight", "2.weight", "2.bias", "5.weight", "6.weight", "6.bias"],
    3: ["1.weight", "2.weight", "2.bias", "5.weight", "6.weight", "6.bias"],
    4: ["1.weight", "1.bias", "3.weight", "4.weight", "4.bias"],
}
"""The weights of each level of the paper's U-Net as packages have named them from the first release on."""


def known_weights(network: nn.Module) -> nn.Module:
    """The same weights on every machine."""
    for number, weight in enumerate(network.state_dict().values()):
        values = 0.3 * torch.sin(1.7 * torch.arange(weight.numel(), dtype=torch.float64) + number)
        weight.copy_(values.reshape(weight.shape))
    return network.eval()


def test_the_papers_network_keeps_its_weights_names_and_its_output() -> None:
    """Recorded before there was a soft-tissue channel or a context: packages from before must give the same PET."""
    network, below = known_weights(UNetGenerator(2)), "levels.layers."
    names = {below + "0.weight", below + "0.bias", below + "3.weight", below + "3.bias"}
    for level in range(1, 5):
        below += "1.layers." if level == 1 else "3.layers."
        names |= {below + name for name in WEIGHT_NAMES[level]}
    assert set(network.state_dict()) == names
    wave = 0.5 + 0.5 * torch.sin(torch.arange(WINDOW**3, dtype=torch.float64) * 0.37)
    with torch.no_grad():
        pet = network(wave.float().reshape(1, 1, WINDOW, WINDOW, WINDOW))
    recorded = [0.505666, 0.550244, 0.50162, 0.516258, 0.58801, 0.569907, 0.602358, 0.586348]
    torch.testing.assert_close(pet.flatten()[::4099], torch.tensor(recorded), rtol=0, atol=2e-6)


def test_the_papers_network_starts_with_the_weights_that_its_seed_always_gave() -> None:
    torch.manual_seed(5)
    sums = [round(float(weight.detach().double().sum()), 6) for weight in UNetGenerator(2).parameters()][:10]
    assert sums == [-0.27578, 0.0, -0.248496, 4.036758, 0.0, -1.193434, 7.996135, 0.0, 0.692635, 15.958633]


def written_out(network: UNetGenerator, values: torch.Tensor) -> torch.Tensor:
    """The paper's U-Net as plain PyTorch calls on its weights, level by level."""
    call, weights = nn.functional, network.state_dict()
    skips, prefix = [], "levels.layers."
    values = call.conv3d(values, weights[prefix + "0.weight"], weights[prefix + "0.bias"], 2, 1)
    for level in range(1, 5):
        prefix += "1.layers." if level == 1 else "3.layers."
        skips.append(values)
        values = call.conv3d(
            call.leaky_relu(values, 0.2), weights[prefix + "1.weight"], weights.get(prefix + "1.bias"), 2, 1
        )
        if level < 4:
            values = call.instance_norm(values, None, None, weights[prefix + "2.weight"], weights[prefix + "2.bias"])
    for level in range(4, 0, -1):
        up, norm = ("3", "4") if level == 4 else ("5", "6")
        values = call.conv_transpose3d(call.relu(values), weights[prefix + up + ".weight"], None, 2, 1)
        values = call.instance_norm(
            values, None, None, weights[f"{prefix}{norm}.weight"], weights[f"{prefix}{norm}.bias"]
        )
        values = torch.cat([skips.pop(), values], 1)
        prefix = prefix.removesuffix("1.layers." if level == 1 else "3.layers.")
    return torch.sigmoid(
        call.conv_transpose3d(call.relu(values), weights[prefix + "3.weight"], weights[prefix + "3.bias"], 2, 1)
    )


def test_the_papers_network_computes_the_same_bytes_as_its_layers_written_out() -> None:
    network = UNetGenerator(4, -1.0).eval()
    with torch.no_grad():
        assert torch.equal(network(windows(2)), written_out(network, windows(2)))


def test_a_context_changes_only_the_innermost_level() -> None:
    plain, seeing = UNetGenerator(4), UNetGenerator(4, context=True)
    shapes, others = (
        {name: tuple(value.shape) for name, value in network.state_dict().items() if not name.startswith("encoder.")}
        for network in (plain, seeing)
    )
    innermost = "levels.layers.1.layers.3.layers.3.layers.3.layers."
    outer = [name for name in shapes if not name.startswith(innermost)]
    assert {name: others[name] for name in outer} == {name: shapes[name] for name in outer}
    assert set(others) - set(outer) == {
        innermost + name for name in ("1.weight", "1.bias", "4.weight", "5.weight", "5.bias")
    }
    batch, around = windows(3), torch.rand(3, 1, WINDOW, WINDOW, WINDOW)
    with torch.no_grad():
        assert not torch.equal(seeing(batch, around), seeing(batch, 1.0 - around))
        together = seeing(batch, around)
        alone = torch.cat([seeing(window[None], one[None]) for window, one in zip(batch, around, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("build", [UNetGenerator, ResNetGenerator])
def test_a_generator_takes_two_channels_and_gives_one(build: type[UNetGenerator] | type[ResNetGenerator]) -> None:
    with torch.no_grad():
        assert build(1, channels=2)(windows(1, 2)).shape == (1, 1, WINDOW, WINDOW, WINDOW)


def test_only_convolutions_without_a_norm_after_them_have_a_bias() -> None:
    layers = [layer for layer in UNetGenerator(8).modules() if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)]
    assert len(layers) == 10
    assert [layer.bias is not None for layer in layers] == [True, False, False, False, True] + [False] * 4 + [True]


def test_a_generator_has_no_dropout_and_no_batch_statistics() -> None:
    kinds = {type(layer).__name__ for layer in UNetGenerator(8).modules()}
    assert not {kind for kind in kinds if "Dropout" in kind or "BatchNorm" in kind}


def test_a_window_does_not_depend_on_its_batch_in_training_mode_either() -> None:
    network, batch = UNetGenerator(4).train(), windows(5)
    with torch.no_grad():
        together, alone = network(batch), torch.cat([network(window[None]) for window in batch])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_the_output_is_within_model_space_and_starts_near_background() -> None:
    with torch.no_grad():
        pet = UNetGenerator(8)(windows(2))
    assert pet.shape == (2, 1, WINDOW, WINDOW, WINDOW)
    assert float(pet.min()) >= 0.0 and float(pet.max()) <= 1.0
    assert math.isclose(float(pet.median()), 1 / (1 + math.exp(3.0)), abs_tol=0.02)


@pytest.mark.parametrize("how", ["autocast", "half weights"])
def test_the_last_activation_is_float32_whatever_the_precision_of_the_rest(how: str) -> None:
    """bfloat16 has 8 bits: a sigmoid computed in it knows at most 257 values between 0.5 and 1."""
    network, batch = UNetGenerator(4), windows(1)
    with torch.no_grad():
        if how == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                pet = network(batch)
        else:
            pet = network.bfloat16()(batch.bfloat16())
    assert pet.dtype == torch.float32
    assert not torch.equal(pet, pet.bfloat16().float())


def test_the_discriminator_judges_6_cubed_patches_of_34_voxels_each() -> None:
    discriminator = PatchDiscriminator(64)
    assert discriminator(windows(3, channels=2)).shape == (3, 1, 6, 6, 6)
    assert receptive_field(discriminator) == 34
    assert round(parameters(discriminator) / 1e6, 2) == 2.65


def test_weights_start_normal_with_a_deviation_of_a_fiftieth() -> None:
    torch.manual_seed(0)
    for network in (UNetGenerator(16), PatchDiscriminator(32)):
        values = torch.cat([p.detach().flatten() for p in network.parameters() if p.dim() == 5])
        assert abs(float(values.mean())) < 1e-3
        assert math.isclose(float(values.std()), 0.02, rel_tol=0.02)


def test_the_residual_generator_has_the_reference_size() -> None:
    """By hand, 64 features: 7^3 in and out, two halvings and doublings of 3^3, 18 convolutions of 3^3 x 256 x 256."""
    convolutions = 2 * 343 * 64 + 2 * 27 * (64 * 128 + 128 * 256) + 18 * 27 * 256 * 256
    norms = 2 * (64 + 128 + 256 + 18 * 256 + 128 + 64)
    with torch.device("meta"):
        network = ResNetGenerator(64)
    assert parameters(network) == convolutions + norms + 1
    assert RESIDUAL_BLOCKS == 9 and round(parameters(network) / 1e6, 1) == 34.1


def test_residual_blocks_work_on_8_voxels_an_edge_and_add_to_what_comes_in() -> None:
    network, edges = ResNetGenerator(2), []
    blocks = [layer for layer in network.modules() if type(layer).__name__ == "_ResidualBlock"]
    for block in blocks:
        block.register_forward_hook(lambda *call: edges.append((call[1][0].shape[-1], call[2].shape[-1])))
    with torch.no_grad():
        network(windows(1))
        for parameter in blocks[0].parameters():
            parameter.zero_()
        values = torch.rand(1, 8, 8, 8, 8)
        assert torch.equal(blocks[0](values), values)
    assert edges[:9] == [(8, 8)] * 9


def test_a_residual_generator_treats_windows_alone_and_stays_in_model_space() -> None:
    network, batch = ResNetGenerator(2).train(), windows(3)
    with torch.no_grad():
        together, alone = network(batch), torch.cat([network(window[None]) for window in batch])
        with torch.autocast("cpu", torch.bfloat16):
            assert network(batch).dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert together.shape == batch.shape and float(together.min()) >= 0.0 and float(together.max()) <= 1.0
    assert math.isclose(float(together.median()), 1 / (1 + math.exp(3.0)), abs_tol=0.02)
    kinds = {type(layer).__name__ for layer in network.modules()}
    assert not {kind for kind in kinds if "Dropout" in kind or "BatchNorm" in kind}


@pytest.mark.parametrize("build", [UNetGenerator, ResNetGenerator])
def test_the_first_guess_of_a_generator_is_an_argument(build: type[nn.Module]) -> None:
    with torch.no_grad():
        assert math.isclose(float(build(2, 0.0)(windows(1)).median()), 0.5, abs_tol=0.05)
