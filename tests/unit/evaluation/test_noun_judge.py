import numpy as np
import pytest
import torch

from diffsplat.evaluation.noun_judge import NounJudge, fit_noun_judge, image_features
from diffsplat.models.efficientnet import EfficientNetLite0


def clusters(count: int, spread: float, seed: int) -> tuple[torch.Tensor, list[str]]:
    """Three Gaussian clouds around the corners of a triangle in the first two of six dimensions."""
    corners = torch.tensor([[4.0, 0, 0, 0, 0, 0], [-2, 3.5, 0, 0, 0, 0], [-2, -3.5, 0, 0, 0, 0]])
    noise = torch.randn(3, count, 6, generator=torch.Generator().manual_seed(seed))
    labels = [noun for noun in ("barrel", "chair", "tree") for _ in range(count)]
    return (corners[:, None] + spread * noise).flatten(0, 1), labels


def test_features_of_batches_and_other_sizes():
    torch.manual_seed(0)
    network = EfficientNetLite0().eval()
    images = torch.rand(2, 2, 3, 64, 64)
    features = image_features(network, images, batch_size=3)
    assert features.shape == (2, 2, 1280)
    alone = image_features(network, images[1, 0])
    torch.testing.assert_close(features[1, 0], alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        image_features(network, torch.rand(2, 4, 8, 8))


def test_separable_classes_are_learned_and_generalise():
    judge = fit_noun_judge(*clusters(30, 0.8, seed=1))
    features, labels = clusters(200, 0.8, seed=2)
    guesses = [judge.nouns[index] for index in judge.log_probabilities(features).argmax(dim=-1).tolist()]
    assert np.mean([guess == label for guess, label in zip(guesses, labels, strict=True)]) > 0.99


def test_fit_is_the_minimum_of_the_stated_objective():
    features, labels = clusters(20, 2.0, seed=3)
    labels = labels[:-15]  # the third noun is rarer; it must weigh as much as the others
    features = features[: len(labels)]
    judge = fit_noun_judge(features, labels, strength=0.05)
    x = ((features - judge.mean) / judge.deviation).double().numpy()
    targets = np.array([judge.nouns.index(label) for label in labels])
    scores = x @ judge.weight.double().numpy() + judge.bias.double().numpy()
    chances = np.exp(scores - scores.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    importance = 1 / (3 * np.bincount(targets)[targets])
    error = (chances - np.eye(3)[targets]) * importance[:, None]
    # First-order condition: the gradient of the cross-entropy cancels that of the penalty.
    np.testing.assert_allclose(x.T @ error, -2 * 0.05 * judge.weight.double().numpy(), atol=1e-5)
    np.testing.assert_allclose(error.sum(0), 0, atol=1e-5)


def test_fit_is_deterministic():
    first, second = (fit_noun_judge(*clusters(20, 2.0, seed=4)) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_log_probabilities_add_up_to_one():
    judge = fit_noun_judge(*clusters(10, 1.0, seed=5))
    total = judge.log_probabilities(torch.randn(4, 2, 6)).exp().sum(dim=-1)
    torch.testing.assert_close(total, torch.ones(4, 2))


def test_rank_averages_the_views():
    # Scores equal the features, so a view's log-probabilities are known in closed form.
    judge = NounJudge(("a", "b", "c"), torch.zeros(3), torch.ones(3), torch.eye(3), torch.zeros(3))
    views = torch.tensor([[9.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 4.0, 2.0]])  # mean 3, 2.67, 0.67
    assert [judge.rank(views, noun) for noun in ("a", "b", "c")] == [1, 2, 3]
    assert judge.rank(views[1:], "b") == 1
    with pytest.raises(ValueError, match="'lamp'"):
        judge.rank(views, "lamp")


def test_saved_judge_is_the_same(tmp_path):
    judge = fit_noun_judge(*clusters(10, 1.0, seed=6))
    judge.save(tmp_path / "judge.safetensors")
    judge.save(tmp_path / "judge.safetensors")
    loaded = NounJudge.load(tmp_path / "judge.safetensors")
    features = torch.randn(5, 6)
    assert loaded.nouns == judge.nouns
    assert torch.equal(loaded.log_probabilities(features), judge.log_probabilities(features))
    assert [path.name for path in tmp_path.iterdir()] == ["judge.safetensors"]
    with pytest.raises(ValueError, match="no such file"):
        NounJudge.load(tmp_path / "other.safetensors")


def test_fit_refuses_bad_input():
    features, labels = clusters(4, 1.0, seed=7)
    with pytest.raises(ValueError, match="one row a label"):
        fit_noun_judge(features, labels[:-1])
    with pytest.raises(ValueError, match="at least two"):
        fit_noun_judge(features, ["chair"] * len(labels))
    with pytest.raises(ValueError, match="strength is -1"):
        fit_noun_judge(features, labels, strength=-1)
