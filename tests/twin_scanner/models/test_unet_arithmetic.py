"""The U-Net's sums in another order; the oracle is the generator itself, PyTorch's own layers."""

import pytest
import torch

from twin_scanner.models.networks import UNetGenerator
from twin_scanner.models.unet_arithmetic import UNetArithmetic
from twin_scanner.render.memory import ARITHMETIC

pytestmark = pytest.mark.unit


def spread_out(features: int, *, channels: int = 1, context: bool = False) -> UNetGenerator:
    """An untrained generator whose layers all matter: weights, norms and biases far from where they start."""
    torch.manual_seed(features)
    network = UNetGenerator(features, -1.0, channels=channels, context=context).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.dim() == 5:
            parameter.mul_(4.0)
        else:
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return network


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("features", [1, 3, 8, 16])
def test_it_says_what_the_generator_says(features: int, layout: torch.memory_format) -> None:
    """Narrow ones take the convolution of eighths twice, wider ones the transposed convolution once."""
    network = spread_out(features).to(memory_format=layout)  # type: ignore[call-overload]
    windows = torch.rand(3, 1, 32, 32, 32)
    with torch.inference_mode():
        expected = network(windows)
        assert expected.std() > 0.02, "networks that say one value everywhere would prove nothing"
        torch.testing.assert_close(UNetArithmetic(network)(windows), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("features", [8, 16, 32])
def test_beside_the_weights_it_keeps_no_more_than_the_prediction_of_a_renders_memory_counts(features: int) -> None:
    """Weights as ``load_package`` lays them out; what has their memory is a view of them."""
    network = spread_out(features).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    weights = {one.untyped_storage().data_ptr(): one.nbytes for one in network.parameters()}
    kept = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in UNetArithmetic(network).kept()}
    beside = sum(size for place, size in kept.items() if place not in weights)
    assert 0 < beside <= ARITHMETIC * sum(weights.values())


def test_it_sees_every_channel_and_the_context() -> None:
    network = spread_out(4, channels=2, context=True)
    windows, around = torch.rand(2, 2, 2, 32, 32, 32)
    with torch.inference_mode():
        expected = network(windows, around)
        assert not torch.allclose(expected, network(windows, 1.0 - around), atol=1e-4)
        torch.testing.assert_close(UNetArithmetic(network)(windows, around), expected, rtol=0, atol=1e-5)


def test_it_leaves_windows_and_weights_as_they_were() -> None:
    network = spread_out(4)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    windows = torch.rand(1, 1, 32, 32, 32)
    before = windows.clone()
    with torch.inference_mode():
        first = UNetArithmetic(network)(windows)
        assert torch.equal(UNetArithmetic(network)(windows), first)
    assert torch.equal(windows, before)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
