"""Recipe of one stage: a network, its batches and the trainer."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from diffsplat.errors import require
from diffsplat.io.file_access import STORAGE_ERRORS, explained_os_errors
from diffsplat.render import warmup
from diffsplat.training.metrics_tracker import training_losses
from diffsplat.training.released_layout_export import lay_release
from diffsplat.training.run_folders import Need, StageFolders, find_network
from diffsplat.training.run_lock import locked_run
from diffsplat.training.run_outcome import Outcome
from diffsplat.training.run_processes import Processes
from diffsplat.training.stages.stage_interface import (
    BatchSource,
    OverfitGoal,
    SourceConfig,
    Stage,
    StageConfig,
)
from diffsplat.training.tensor_cache import folder_digest
from diffsplat.training.trainer import Trainer, is_finished
from diffsplat.training.trainer_config import TrainerConfig

logger = logging.getLogger(__name__)

Flat = tyro.conf.arg(name="")


class StageRecipe(ABC):
    """How one network of a model is made."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return ()

    @property
    def pretrained(self) -> str | None:
        """Repository of the hub whose networks it begins with; None for none."""
        return None

    def check(self, _folders: StageFolders) -> None:
        """Refuse what would fail later, before anything is computed: data of another size, a missing package.

        Networks that are not trained yet are passed over.

        Raises:
            ValueError: says both sizes.
            ModuleNotFoundError: names the package.
        """
        return

    @abstractmethod
    def run(self, folders: StageFolders) -> Outcome:
        """Make the network, or go on where an earlier call stopped."""

    @abstractmethod
    def processes(self) -> Processes:
        """The processes of the run, on the device that was asked for."""

    @abstractmethod
    def is_finished(self, out: Path) -> bool:
        """Whether the network is made already."""


@dataclass(frozen=True)
class GradientTraining(StageRecipe):
    """A network that the trainer optimises.

    Args:
        stage: the network and its loss.
        source: the batches.
        trainer: the loop.
    """

    stage: Annotated[StageConfig, Flat]
    source: SourceConfig
    trainer: Annotated[TrainerConfig, Flat]

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that it is made from."""
        return self.stage.needs

    @property
    def pretrained(self) -> str | None:
        """Repository of the hub whose networks it begins with; None for none."""
        return self.stage.pretrained

    def check(self, folders: StageFolders) -> None:
        """Refuse to begin without a package, or with data of a size that the networks are not made for.

        Raises:
            ValueError: naming the size, and that of the networks or of their patches.
            ModuleNotFoundError: naming the package.
        """
        self.stage.check_packages()
        size, expected = self.source.view_size(folders.data), self.stage.network_size(folders)
        same = None in (size, expected) or size == expected
        require(same, "the size of the data's images", size, f"the {expected} pixels of the networks")
        patch = self.stage.image_patch
        cut = size is None or size % patch == 0
        require(cut, "patch", patch, f"a divisor of the {size} pixels of the data's images")

    def build(self, folders: StageFolders) -> tuple[Stage, BatchSource[Any]]:
        """Stage and source; the initial weights are those to start from, or a function of the seed.

        Raises:
            ValueError: when the networks are not made for images of the data's size, or not those to start from.
            ModuleNotFoundError: when an optional package is missing.
        """
        self.check(folders)
        with _seeded(self.trainer.seed):
            stage = self.stage.build(folders)
        if folders.start_from is not None:
            stage.start_from(find_network(folders.start_from))
        # Last, as it may take minutes to fill a cache.
        return stage, self.source.build(folders)

    def run(self, folders: StageFolders) -> Outcome:
        """Train the network from scratch or from where it stopped."""
        processes = self.processes()
        with processes.main_first():  # makes caches, which the others then find
            if processes.count > 1 and processes.device.type == "cpu":
                warmup()  # the rasterizer, which all would compile at once
            stage, source = self.build(folders)
        networks = processes.once(lambda: self._network_digests(folders))
        record = {"folders": asdict(folders), "networks": networks, **asdict(self)}
        outcome = Trainer(stage, source, self.trainer, folders.out, record=record).run()
        if folders.overfit and outcome.status == "finished" and outcome.figures:
            _report_overfit(folders, self.stage.overfit_goal, outcome.figures)
        release = self.stage.release
        if release is not None and outcome.status != "interrupted":
            processes.once(lambda: lay_release(release, folders, outcome.step))
        return outcome

    def _network_digests(self, folders: StageFolders) -> dict[Need, str]:
        return {need: folder_digest(folders.trained(need)).hex()[:16] for need in self.needs}

    def processes(self) -> Processes:
        """The processes of the run."""
        return Processes(self.trainer.device)

    def is_finished(self, out: Path) -> bool:
        """Whether the last step is done."""
        return is_finished(self.trainer, out)


def train_stage(recipe: StageRecipe, folders: StageFolders) -> Outcome:
    """Make one network of a model; the networks that it needs are looked for before anything is computed.

    Raises:
        ValueError: when one of them is not given, another training runs in the same folder, or the disk is full.
        FileNotFoundError: when one of them is not there.
    """
    processes = recipe.processes()
    with processes.main_first():
        for need in recipe.needs:
            folders.trained(need)
    failure = (
        f"the run in {str(folders.out)!r} stopped, and the same command goes on from its newest checkpoint"
    )
    full_disk = explained_os_errors(failure, STORAGE_ERRORS)
    with full_disk, processes.explained_loss(), locked_run(folders.out, processes):
        return recipe.run(folders)


def _report_overfit(folders: StageFolders, goal: OverfitGoal | None, figures: Mapping[str, float]) -> None:
    """Say in one line whether a few objects were learned by heart."""
    if goal is None:
        first, last = training_losses(folders.out)
        name, reached = f"the training loss went from {first:.4g} to {last:.4g} and", last <= first / 2
        expected = "half of what it was, as it must"
    else:
        name, reached = goal.figure, figures[goal.figure] >= goal.least
        expected = f"the {goal.least:g} that it must"
    verdict = "reaches" if reached else "does NOT reach"
    listed = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
    logger.info("overfit on %d objects: %s %s %s (%s)", folders.overfit, name, verdict, expected, listed)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch draws from ``seed`` inside the block and goes on as before after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
