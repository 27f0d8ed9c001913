"""The component autoencoder: fitted in one pass over splat grids, not trained by gradients."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from diffsplat.core import SplatGrid, Views
from diffsplat.evaluation.model_evaluation import evaluate_grids, held_out_views
from diffsplat.io.file_access import make_folder
from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.training.batch_tensors import to_device
from diffsplat.training.config_record import write_record
from diffsplat.training.grid_cache import grid_table
from diffsplat.training.run_folders import Need, StageFolders
from diffsplat.training.run_outcome import Outcome, atomic_folder
from diffsplat.training.run_processes import Device, Processes
from diffsplat.training.stages.stage_recipe import StageRecipe
from diffsplat.training.view_batches import held_out, training_objects


@dataclass(frozen=True)
class ComponentFit(StageRecipe):
    """An autoencoder of the principal components of a trained reconstructor's splat grids.

    Args:
        patch: edge of a patch in pixels; a patch is one latent vector.
        latent_channels: length of a latent vector, the number of principal components.
        latent_deviation: root mean square of the latents.
        component_objects: objects whose grids the components are computed from.
        evaluation_objects: held-out objects that figures are measured on; 0 for no figures.
        device: ``auto`` takes the GPU when there is one.
    """

    patch: int = 8
    latent_channels: int = 192
    latent_deviation: float = 1.0
    component_objects: int = 480
    evaluation_objects: int = 32
    device: Device = "auto"

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ("reconstructor",)

    def network(self, image_size: int) -> ComponentAutoencoder:
        """The autoencoder before it is fitted."""
        return ComponentAutoencoder(
            image_size=image_size,
            patch=self.patch,
            latent_channels=self.latent_channels,
            latent_deviation=self.latent_deviation,
        )

    def run(self, folders: StageFolders) -> Outcome:
        """Fit the components, or take those of an earlier run, and measure what they lose: in the main process."""
        processes = self.processes()
        figures = processes.once(lambda: self._make(folders, processes.device))
        return Outcome("finished", 0, figures, folders.out / "weights")

    def processes(self) -> Processes:
        """The processes of the run."""
        return Processes(self.device)

    def is_finished(self, out: Path) -> bool:
        """Whether the fitted autoencoder is written."""
        return (out / "weights").is_dir()

    def _make(self, folders: StageFolders, device: torch.device) -> dict[str, float]:
        """Write the autoencoder; its figures."""
        autoencoder = self._fitted(folders, device)
        figures = self._measure(autoencoder, folders) if self.evaluation_objects else {}
        make_folder(folders.out)
        write_record(folders.out, {"folders": asdict(folders), "stage": asdict(self)})
        line = {"step": 0, "kind": "evaluation", **figures}
        (folders.out / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        with atomic_folder(folders.out / "weights") as weights:
            autoencoder.save_pretrained(weights, half=True)
        return figures

    def _fitted(self, folders: StageFolders, device: torch.device) -> ComponentAutoencoder:
        """The autoencoder, on the CPU."""
        dataset = training_objects(folders)
        autoencoder = self.network(dataset.rows[0].cameras.width)
        if folders.start_from is not None:
            autoencoder.load_weights(folders.start_from)
            return autoencoder
        table = grid_table(folders.trained("reconstructor"), dataset, folders.grids)
        batches = tqdm(table.spread(self.component_objects), unit="batch", desc="components")
        autoencoder.to(device).fit_components(to_device(grids, device) for grids in batches)
        return autoencoder.cpu()

    def _measure(self, autoencoder: ComponentAutoencoder, folders: StageFolders) -> dict[str, float]:
        """PSNR (dB) and SSIM on held-out objects, through the reconstructor and the autoencoder."""
        reconstructor = GSRecon.from_pretrained(folders.trained("reconstructor"))

        def predict(inputs: Views) -> SplatGrid:
            return autoencoder.decode(autoencoder.encode(reconstructor(inputs)))

        objects = held_out_views(held_out(folders), self.evaluation_objects)
        return evaluate_grids({"autoencoder": predict}, objects).figures
