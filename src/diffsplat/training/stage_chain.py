"""The stages of a recipe in order, from data to a model folder."""

import logging
from typing import Literal

from diffsplat.training.model_export import export_model
from diffsplat.training.recipes.model_recipe import Recipe
from diffsplat.training.run_folders import RunFolders
from diffsplat.training.run_lock import locked_run
from diffsplat.training.run_outcome import Status
from diffsplat.training.run_processes import Processes
from diffsplat.training.stages.stage_recipe import StageRecipe, train_stage

logger = logging.getLogger(__name__)

WhenTimeIsUp = Literal["stop", "next"]
"""What a stage's ``max_minutes`` ends: all stages, which the next call continues, or that stage, whose weights the
next stages then use as they are."""


def train_recipe(recipe: Recipe, folders: RunFolders, when_time_is_up: WhenTimeIsUp = "stop") -> Status:
    """Train what is not yet trained in ``out / stage``, then write ``out / "model"``.

    Returns:
        ``finished`` when the model folder is written.

    Raises:
        ValueError: when another training runs in the same folder, or the data has images of another size than the
            networks are made for.
        ModuleNotFoundError: when a stage needs an optional package that is not installed.
    """
    stages = recipe.trained_stages()
    processes = next(iter(stages.values())).processes()
    with processes.explained_loss(), locked_run(folders.out, processes):
        with processes.main_first():
            for name, stage in stages.items():
                stage.check(folders.of_stage(name))
        for name, stage in stages.items():
            status = _train_unfinished(name, stage, folders, processes)
            if status == "interrupted" or (status == "out_of_time" and when_time_is_up == "stop"):
                return status
        model = folders.out / "model"
        processes.once(lambda: export_model(model, folders, recipe.sampling, force=True))
    return "finished"


def _train_unfinished(name: str, stage: StageRecipe, folders: RunFolders, processes: Processes) -> Status:
    if processes.once(lambda: stage.is_finished(folders.out / name)):
        logger.info("%s is trained already", name)
        return "finished"
    return train_stage(stage, folders.of_stage(name)).status
