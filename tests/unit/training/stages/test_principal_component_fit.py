"""The grids that the autoencoder of principal components is fitted to."""

from pathlib import Path

import torch

from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.models import GSRecon
from diffsplat.training.stages.principal_component_fit import front_grids


def test_grids_are_what_the_reconstructor_makes_of_the_front_rings(data: Path) -> None:
    torch.manual_seed(0)
    dataset, network = ObjectDataset(data), GSRecon(dim=48, blocks=1, heads=4)
    with torch.no_grad():
        rings = [dataset.load_views(index, row.ring_views(0)) for index, row in enumerate(dataset.rows)]
        whole = torch.cat([network(views).values for views in rings])
    for count, chosen in ((2, [0, 2]), (9, [0, 1, 2])):
        grids = torch.cat([grid.values for grid in front_grids(network, dataset, count)])
        torch.testing.assert_close(grids, whole[chosen], atol=1e-5, rtol=1e-5)
