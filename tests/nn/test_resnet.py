"""ResNets: torchvision's names and shapes, what frozen norms compute, and where a spatial softmax looks."""

import pytest
import torch
from safetensors.torch import save_file

from pilot.nn.configs import ResNetConfig
from pilot.nn.resnet import FrozenBatchNorm, ResNet, SpatialSoftmax, normalize_imagenet

SMALL = ResNetConfig(widths=(16, 32), blocks=1, norm="frozen_batch")


def published(network: ResNet) -> dict[str, torch.Tensor]:
    """Weights as torchvision publishes them: with a classifier, and a counter beside every norm."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.rand(t.shape, generator=generator) + 0.5 for name, t in network.state_dict().items()}
    norms = {name.removesuffix("running_var") for name in weights if name.endswith("running_var")}
    counters = {f"{name}num_batches_tracked": torch.tensor(7) for name in norms}
    return weights | counters | {"fc.weight": torch.zeros(1000, 32), "fc.bias": torch.zeros(1000)}


def test_it_is_resnet_18_under_torchvisions_names():
    with torch.device("meta"):
        network = ResNet(ResNetConfig(norm="frozen_batch"))
    weights = network.state_dict()
    norms = sum(t.numel() for name, t in weights.items() if "running" in name)
    assert sum(t.numel() for t in weights.values()) - norms == 11_689_512 - 513_000, "torchvision's, but its classifier"
    assert weights["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert weights["layer4.1.bn2.running_var"].shape == (512,)
    assert {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer3.1.conv2.weight"} <= set(weights)
    with torch.device("meta"):
        assert network(torch.zeros(1, 240, 240, 3)).shape == (1, 512, 8, 8), "32 pixels to a cell"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_weights_load(tmp_path, suffix):
    network, file = ResNet(SMALL), tmp_path / f"resnet{suffix}"
    weights = published(network)
    save_file(weights, file) if suffix == ".safetensors" else torch.save(weights, file)
    network.load_torchvision(file)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(ValueError, match=r"does not fit this ResNet .*'group'"):
        ResNet(ResNetConfig(widths=(16, 32), blocks=1)).load_torchvision(file)


def test_a_frozen_norm_is_torchs_batch_norm_that_learns_no_more():
    frozen, plain = FrozenBatchNorm(16), torch.nn.BatchNorm2d(16).eval()
    generator = torch.Generator().manual_seed(0)
    for name, buffer in frozen.named_buffers():
        buffer.copy_(torch.rand(16, generator=generator) + 0.5)
        plain.get_parameter(name).data.copy_(buffer) if name in ("weight", "bias") else plain.get_buffer(name).copy_(
            buffer
        )
    x = torch.randn(2, 16, 4, 4, generator=generator)
    assert torch.allclose(frozen(x), plain(x), atol=1e-5) and not list(frozen.parameters())


def test_the_grid_of_features():
    for config, size, cells in ((ResNetConfig(widths=(16, 32), pool=False), 16, 4), (SMALL, 18, 3)):
        features = ResNet(config)(torch.zeros(2, size, size, 3))
        assert features.shape == (2, 32, cells, cells)
    with pytest.raises(ValueError, match=r"does not divide \[24\]"):
        ResNetConfig(widths=(16, 24))


def test_colours_are_imagenets():
    x = normalize_imagenet(torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 1, 1, 3))
    assert torch.allclose(x[0, :, 0, 0], torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]))
    assert torch.allclose(x[1, 0, 0, 0], torch.tensor((1 - 0.485) / 0.229))


def test_a_spatial_softmax_says_where():
    softmax = SpatialSoftmax(1, 4, points=1)
    with torch.no_grad():
        softmax.points.weight.fill_(100.0)
        softmax.points.bias.zero_()
        x = torch.zeros(1, 1, 5, 3)
        x[0, 0, 4, 0] = 1.0
        assert torch.allclose(softmax.keypoints(x), torch.tensor([[[1.0, -1.0]]]), atol=1e-4)
        assert softmax(x).shape == (1, 4)
