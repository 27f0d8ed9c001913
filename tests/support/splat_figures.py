"""A small object that no mirror and no turn leaves as it is."""

import torch

from diffsplat.core import Splats

BLOCKS = (
    # corner, size, colour
    ((-0.35, -0.45, -0.25), (0.70, 0.20, 0.50), (0.15, 0.30, 0.85)),
    ((-0.35, -0.25, -0.25), (0.22, 0.65, 0.22), (0.85, 0.20, 0.15)),
    ((0.05, -0.25, 0.00), (0.26, 0.26, 0.26), (0.10, 0.65, 0.25)),
)


def blocks(count: int = 1200) -> Splats:
    """A flat blue block that carries a high red one, behind on the left, and a green cube in front on the right."""
    random = torch.Generator().manual_seed(4)
    per_block = count // len(BLOCKS)
    means, colors = [], []
    for corner, size, color in BLOCKS:
        places = torch.rand(per_block, 3, generator=random)
        means.append(torch.tensor(corner) + places * torch.tensor(size))
        colors.append(torch.tensor(color).expand(per_block, 3))
    total = per_block * len(BLOCKS)
    return Splats(
        means=torch.cat(means),
        scales=0.012 + 0.02 * torch.rand(total, 3, generator=random),
        quats=torch.nn.functional.normalize(torch.randn(total, 4, generator=random), dim=-1),
        opacities=0.6 + 0.39 * torch.rand(total, generator=random),
        colors=torch.cat(colors),
    )
