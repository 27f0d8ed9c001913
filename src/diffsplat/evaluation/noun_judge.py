"""Noun judge: names rendered objects, independently of the generator.

Features of a frozen ImageNet network, standardised, and on top of them a multinomial logistic regression that
is fitted on real renders. Fitting is full-batch L-BFGS in float64 from zero: the same features give the same
judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffsplat.core import tensor_checks
from diffsplat.errors import InvalidInputError, require
from diffsplat.io.file_access import atomic_path, require_readable
from diffsplat.models.efficientnet import EfficientNetLite0

_FORMAT = "diffsplat noun judge 1"
_MOST_ITERATIONS = 150


@dataclass(frozen=True)
class NounJudge:
    """A linear classifier of nouns on image features.

    Args:
        nouns: the ``C`` classes.
        mean: ``[F]`` mean of the features it was fitted on.
        deviation: ``[F]`` their standard deviation, above zero.
        weight: ``[F, C]``.
        bias: ``[C]``.
    """

    nouns: tuple[str, ...]
    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor

    def log_probabilities(self, features: Tensor) -> Tensor:
        """``[..., C]`` log-probabilities of the nouns for ``[..., F]`` features."""
        tensor_checks.require_shape("NounJudge", "features", features, (self.mean.shape[0],))
        standardised = (features.to(self.mean) - self.mean) / self.deviation
        return F.log_softmax(standardised @ self.weight + self.bias, dim=-1)

    def rank(self, features: Tensor, noun: str) -> int:
        """Place of ``noun``, 1 for the best, for an object seen in views with ``[V, F]`` features.

        The views' log-probabilities are averaged.

        Raises:
            ValueError: for a noun that it was not fitted on.
        """
        if noun not in self.nouns:
            raise InvalidInputError(
                f"the judge does not know {noun!r}, expected one of its {len(self.nouns)} nouns"
            )
        scores = self.log_probabilities(features).mean(dim=0)
        return 1 + int((scores > scores[self.nouns.index(noun)]).sum())

    def save(self, path: Path) -> None:
        """Write as safetensors, replacing an older file."""
        tensors = {
            "mean": self.mean,
            "deviation": self.deviation,
            "weight": self.weight.contiguous(),
            "bias": self.bias,
        }
        with atomic_path(path, force=True) as temporary:
            save_file(tensors, temporary, metadata={"format": _FORMAT, "nouns": "\n".join(self.nouns)})

    @classmethod
    def load(cls, path: Path) -> "NounJudge":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: when the file cannot be read, or is not a judge of this version.
        """
        with safe_open(require_readable(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise InvalidInputError(f"{str(path)!r} holds no noun judge, expected a file of this version")
            tensors = {name: file.get_tensor(name) for name in ("mean", "deviation", "weight", "bias")}
        return cls(nouns=tuple(metadata["nouns"].split("\n")), **tensors)


def fit_noun_judge(features: Tensor, labels: Sequence[str], *, strength: float = 0.02) -> NounJudge:
    """Fit the classifier; every noun has the same weight however many images it has.

    Args:
        features: ``[N, F]``, one row an image.
        labels: the noun of every image.
        strength: weight of the squared weights in the loss, next to the mean cross-entropy.

    Raises:
        ValueError: for lengths that differ, fewer than two nouns or values out of range.
    """
    if features.dim() != 2 or features.shape[0] != len(labels):
        raise InvalidInputError(
            f"fit_noun_judge got features of shape {tuple(features.shape)} for {len(labels)} labels, "
            "expected one row a label"
        )
    require(strength > 0, "strength", strength, "a positive number")
    nouns = tuple(sorted(set(labels)))
    if len(nouns) < 2:
        raise InvalidInputError(f"fit_noun_judge got {len(nouns)} different nouns, expected at least two")
    features = features.double()
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(1e-3)
    targets = torch.tensor([nouns.index(label) for label in labels])
    weight, bias = _logistic_regression((features - mean) / deviation, targets, len(nouns), strength)
    return NounJudge(nouns, *(tensor.float() for tensor in (mean, deviation, weight, bias)))


def _logistic_regression(
    inputs: Tensor, targets: Tensor, classes: int, strength: float
) -> tuple[Tensor, Tensor]:
    """Weights ``[F, classes]`` and biases ``[classes]`` for ``[N, F]`` inputs with ``[N]`` class numbers."""
    counts = torch.bincount(targets, minlength=classes).double()
    importance = (1 / (classes * counts))[targets]
    weight = torch.zeros(inputs.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_MOST_ITERATIONS,
        tolerance_grad=1e-6,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        cross_entropy = F.cross_entropy(inputs @ weight + bias, targets, reduction="none")
        loss = (importance * cross_entropy).sum() + strength * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)  # pyright: ignore[reportArgumentType] - torch annotates the closure as float
    return weight.detach(), bias.detach()


@torch.no_grad()
def image_features(network: EfficientNetLite0, images: Tensor, *, batch_size: int = 4) -> Tensor:
    """``[*B, 1280]`` features of ``[*B, 3, H, W]`` images (sRGB 0..1 on white).

    Small batches are faster on a CPU: their activations stay in its cache.
    """
    tensor_checks.require_shape("image_features", "images", images, (3, None, None))
    flat = images.reshape(-1, *images.shape[-3:])
    features = torch.cat([network(part) for part in flat.split(batch_size)])
    return features.reshape(*images.shape[:-3], -1)
