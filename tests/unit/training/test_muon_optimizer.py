"""Muon against the one in torch, and its matrices against their singular values."""

import pytest
import torch
from torch import nn

from diffsplat.training.muon_optimizer import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (48, 12)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    sizes = sizes.clamp_min(0.1 * float(sizes.max()))
    found = orthogonalized(left @ torch.diag(sizes) @ right, torch.float64)
    inner = left.mT @ found @ right.mT
    assert inner.diagonal().min() > 0.6
    assert inner.diagonal().max() < 1.3
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-8, rtol=0)
    torch.testing.assert_close(left @ inner @ right, found, atol=1e-8, rtol=0)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9")
def test_updates_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 like torch's; after a few steps the two paths are one, rounding included."""
    monkeypatch.setattr("diffsplat.training.muon_optimizer.faster_in_bf16", lambda _: True)
    random = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=random) for shape in ((16, 24), (32, 8))]
    pair = [[nn.Parameter(values.clone()) for values in start] for _ in range(2)]
    ours = Muon(pair[0], 0.01, 0.1, 0.9)
    torchs = torch.optim.Muon(
        pair[1], lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        for mine, other in zip(*pair, strict=True):
            mine.grad = torch.randn(mine.shape, generator=random)
            other.grad = mine.grad.clone()
        ours.step()
        torchs.step()
    for mine, other, before in zip(*pair, start, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)
        assert (mine - before).abs().max() > 0.01


def test_a_convolution_moves_like_the_matrix_of_its_kernel() -> None:
    random = torch.Generator().manual_seed(0)
    kernel = nn.Parameter(torch.randn(8, 3, 5, 5, generator=random))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    optimizer = Muon([kernel, matrix], 0.01, 0.1, 0.9)
    for _ in range(3):
        kernel.grad = torch.randn(kernel.shape, generator=random)
        matrix.grad = kernel.grad.flatten(1)
        optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix, atol=0, rtol=0)


def test_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\), expected two dimensions or more"):
        Muon([nn.Parameter(torch.zeros(3))], 0.1, 0.0, 0.9)
