"""Networks of principal components: fitted in one pass over the data, not trained by gradients."""

import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from diffsplat.core import SplatGrid, Views
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import require, require_at_least
from diffsplat.evaluation.control_agreement import condition_images
from diffsplat.evaluation.evaluation_objects import held_out_views
from diffsplat.evaluation.held_out_view_evaluation import evaluate_grids
from diffsplat.evaluation.image_metrics import psnr
from diffsplat.io.file_access import make_folder
from diffsplat.models.condition_encoder import CONDITION_KINDS, ConditionEncoder
from diffsplat.models.network_base_class import BaseNetwork
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.training.batch_tensors import to_device
from diffsplat.training.config_record import write_record
from diffsplat.training.run_folders import Need, StageFolders
from diffsplat.training.run_outcome import Outcome, atomic_folder
from diffsplat.training.run_processes import Device, Processes
from diffsplat.training.stages.stage_recipe import StageRecipe
from diffsplat.training.view_batches import held_out, spread_batches, training_objects

_AT_ONCE = 4
"""Objects that are reconstructed together."""


@dataclass(frozen=True)
class PrincipalComponentFit(StageRecipe):
    """A network whose weights are principal components of the training data: nothing is trained.

    Args:
        device: ``auto`` takes the GPU when there is one.
    """

    device: Device = "auto"

    def run(self, folders: StageFolders) -> Outcome:
        """Fit the components, or take those of an earlier run, and measure what they lose: in the main process."""
        processes = self.processes()
        figures = processes.once(lambda: self._make(folders, processes.device))
        return Outcome("finished", 0, figures, folders.out / "weights")

    def processes(self) -> Processes:
        """The processes of the run."""
        return Processes(self.device)

    def is_finished(self, out: Path) -> bool:
        """Whether the fitted network is written."""
        return (out / "weights").is_dir()

    @abstractmethod
    def network(self, image_size: int, /) -> BaseNetwork:
        """The network before it is fitted."""

    @abstractmethod
    def fit(self, network: Any, dataset: ObjectDataset, folders: StageFolders, /) -> None:
        """Compute the components, on the device of the network."""

    @abstractmethod
    def measured(self, network: Any, folders: StageFolders, /) -> dict[str, float]:
        """What its components lose of held-out objects."""

    def _make(self, folders: StageFolders, device: torch.device) -> dict[str, float]:
        """Write the network; its figures."""
        dataset = training_objects(folders)
        network = self.network(dataset.rows[0].cameras.width)
        if folders.start_from is None:
            self.fit(network.to(device), dataset, folders)
        else:
            network.load_weights(folders.start_from)
        network.cpu()
        figures = self.measured(network, folders)
        make_folder(folders.out)
        write_record(folders.out, {"folders": asdict(folders), "stage": asdict(self)})
        line = {"step": 0, "kind": "evaluation", **figures}
        (folders.out / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        with atomic_folder(folders.out / "weights") as weights:
            network.save_pretrained(weights, half=True)
        return figures


@dataclass(frozen=True)
class ComponentFit(PrincipalComponentFit):
    """An autoencoder of the principal components of a trained reconstructor's splat grids.

    Args:
        patch: edge of a patch in pixels; a patch is one latent vector.
        latent_channels: length of a latent vector, the number of principal components.
        latent_deviation: root mean square of the latents.
        component_objects: objects whose grids the components are computed from.
        evaluation_objects: held-out objects that figures are measured on; 0 for no figures.
    """

    patch: int = 8
    latent_channels: int = 192
    latent_deviation: float = 1.0
    component_objects: int = 480
    evaluation_objects: int = 32

    def __post_init__(self) -> None:
        require_at_least(1, self, "patch", "latent_channels", "component_objects")
        require_at_least(0, self, "evaluation_objects")
        require(self.latent_deviation > 0, "latent_deviation", self.latent_deviation, "a number above 0")

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor",)

    def network(self, image_size: int, /) -> ComponentAutoencoder:
        """The autoencoder before it is fitted."""
        return ComponentAutoencoder(
            image_size=image_size,
            patch=self.patch,
            latent_channels=self.latent_channels,
            latent_deviation=self.latent_deviation,
        )

    def fit(self, network: ComponentAutoencoder, dataset: ObjectDataset, folders: StageFolders, /) -> None:
        """Compute the components of the splat grids."""
        reconstructor = GSRecon.from_pretrained(folders.trained("reconstructor")).to(network.device)
        grids = front_grids(reconstructor, dataset, self.component_objects)
        network.fit_components(tqdm(grids, unit="batch", desc="components"))

    def measured(self, network: ComponentAutoencoder, folders: StageFolders, /) -> dict[str, float]:
        """PSNR (dB) and SSIM on held-out objects, through the reconstructor and the autoencoder."""
        if not self.evaluation_objects:
            return {}
        reconstructor = GSRecon.from_pretrained(folders.trained("reconstructor"))

        def predict(inputs: Views) -> dict[str, SplatGrid]:
            return {"autoencoder": network.decode(network.encode(reconstructor(inputs)))}

        objects = held_out_views(held_out(folders), self.evaluation_objects)
        return evaluate_grids(predict, objects).figures


@dataclass(frozen=True)
class ConditionFit(PrincipalComponentFit):
    """An encoder of images and control maps, of the principal components of their patches.

    Args:
        patch: edge of a patch in pixels, as of the autoencoder's.
        channels: principal components.
        component_views: views whose images and maps the components are computed from; no more than there are.
        evaluation_views: held-out views that figures are measured on.
    """

    patch: int = 8
    channels: int = 64
    component_views: int = 1_000
    evaluation_views: int = 64

    def __post_init__(self) -> None:
        require_at_least(1, self, "patch", "channels", "component_views", "evaluation_views")

    def network(self, image_size: int, /) -> ConditionEncoder:
        """The encoder before it is fitted."""
        return ConditionEncoder(image_size, self.patch, self.channels)

    def fit(self, network: ConditionEncoder, dataset: ObjectDataset, _folders: StageFolders, /) -> None:
        """Compute the components of the images and maps."""
        stored = sum(len(row.ring) for row in islice(dataset.rows, self.component_views))
        count = min(self.component_views, stored)
        views = tqdm(_single_views(dataset, count), total=count, unit="view", desc="components")
        images = (condition_images(view, kind) for view in views for kind in CONDITION_KINDS)
        network.fit_components(to_device(batch, network.device) for batch in images)

    def measured(self, network: ConditionEncoder, folders: StageFolders, /) -> dict[str, float]:
        """PSNR (dB) of what is left of each kind of image."""
        views = list(_single_views(held_out(folders), self.evaluation_views))
        figures: dict[str, float] = {}
        for kind in CONDITION_KINDS:
            images = [condition_images(view, kind) for view in views]
            kept = [psnr(network.decode(network.encode(image, kind)), image) for image in images]
            figures[f"psnr_{kind}"] = float(torch.stack(kept).mean())
        return figures


@torch.no_grad()
def front_grids(reconstructor: GSRecon, dataset: ObjectDataset, count: int) -> Iterator[SplatGrid]:
    """Grids of about ``count`` evenly spread objects from the front, a few at once: what text generation makes."""
    for part in spread_batches(len(dataset), count, _AT_ONCE):
        views = Views.concatenate([dataset.canonical(index) for index in part])
        yield reconstructor(views.to(reconstructor.device))


def _single_views(dataset: ObjectDataset, count: int) -> Iterator[Views]:
    """Random views of random objects, read one after another."""
    random = np.random.default_rng(0)
    for row in random.integers(len(dataset), size=count).tolist():
        yield dataset.load_views(row, [int(random.integers(len(dataset.rows[row].ring)))])
