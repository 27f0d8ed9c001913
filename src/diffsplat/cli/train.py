"""``diffsplat train``: one stage, or all stages of a recipe."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from diffsplat.training.launched_errors import launched_rank, say_once
from diffsplat.training.model_export import export_model
from diffsplat.training.recipes import RECIPES, network_recipes
from diffsplat.training.recipes.embedded_mini_recipe import MINI
from diffsplat.training.recipes.model_recipe import Recipe, SamplingRecipe
from diffsplat.training.run_folders import RunFolders, StageFolders
from diffsplat.training.run_outcome import Status
from diffsplat.training.run_processes import LostProcessError
from diffsplat.training.stage_chain import WhenTimeIsUp, train_recipe
from diffsplat.training.stages.stage_recipe import Flat, StageRecipe, train_stage
from diffsplat.training.trainer import DivergedError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
Command = Callable[..., None]


def list_recipes() -> None:
    """List what can be trained, and what it needs besides --data and --out."""
    rows = [("command", "makes", "needs")]
    rows += [(recipe.name, recipe.summary, "") for recipe in RECIPES.values()]
    for recipe in network_recipes().values():
        needs = [f"--{need.replace('_', '-')}" for need in recipe.stage.needs]
        needs += [f"--pretrained with {recipe.stage.pretrained}"] if recipe.stage.pretrained else []
        rows.append((recipe.name, recipe.summary, " ".join(needs)))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for command, makes, needs in rows:
        print(f"{command:{widths[0]}}  {makes:{widths[1]}}  {needs}".rstrip())


def _export_command(recipe: Recipe) -> Command:
    def command(
        runs: Annotated[Path, tyro.conf.Positional],
        out: Path,
        data: Annotated[tuple[str | Path, ...], tyro.conf.arg(metavar="DIR [DIR ...]")],
        sampling: Annotated[SamplingRecipe, Flat] = recipe.sampling,
        force: bool = False,
    ) -> None:
        """Write a model folder from the weights that the stages have by now.

        Args:
            runs: Folder of the runs, the OUT of diffsplat train mini or small.
            out: The model folder to write.
            data: Folders that diffsplat data wrote, for the credits.
            sampling: How the model is sampled unless its user says otherwise.
            force: Replace an existing folder.
        """
        size = export_model(out, RunFolders(data, runs), sampling, force=force)
        print(f"{out} ({size / 1e6:.1f} MB)")

    return command


def _recipe_command(default: Recipe) -> Command:
    def command(
        folders: Annotated[RunFolders, Flat],
        recipe: Annotated[Recipe, Flat] = default,
        when_time_is_up: WhenTimeIsUp = "stop",
    ) -> None:
        """Train the stages of a model in order and write its folder, OUT/model.

        The same command goes on where it stopped.

        Args:
            folders: What is read and where it is written.
            recipe: What the stages are trained with.
            when_time_is_up: What the max-minutes of a stage end: all stages, or that one, whose weights the next
                stages then use as they are.
        """
        _report(lambda: train_recipe(recipe, folders, when_time_is_up), folders.out / "model")

    return command


def _stage_command(default: StageRecipe) -> Command:
    def command(
        folders: Annotated[StageFolders, Flat], recipe: Annotated[StageRecipe, Flat] = default
    ) -> None:
        """Train one stage of a model.

        Args:
            folders: What is read and where it is written.
            recipe: What it is trained with.
        """
        _report(lambda: train_stage(recipe, folders).status, folders.out / "weights")

    return command


def _commands() -> dict[str, Command]:
    commands: dict[str, Command] = {"list": list_recipes}
    commands |= {recipe.name: _recipe_command(recipe) for recipe in RECIPES.values()}
    commands |= {recipe.name: _stage_command(recipe.stage) for recipe in network_recipes().values()}
    exports = {name: "export" if recipe is MINI else f"export-{name}" for name, recipe in RECIPES.items()}
    return commands | {exports[name]: _export_command(recipe) for name, recipe in RECIPES.items()}


def _report(work: Callable[[], Status], result: Path) -> None:
    """Run a training; its main process prints how it ended."""
    rank = launched_rank()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("diffsplat").setLevel(logging.INFO if rank == 0 else logging.ERROR)
    try:
        status = work()
    except (DivergedError, LostProcessError) as error:
        sentence = f"diffsplat: error: {error}"
        say_once(lambda: print(sentence, file=sys.stderr))
        raise SystemExit(EXIT_FAILED) from error
    if rank == 0:
        _print_status(status, result)
    if status == "interrupted":
        raise SystemExit(EXIT_INTERRUPTED)


def _print_status(status: Status, result: Path) -> None:
    match status:
        case "finished":
            print(result)
        case "out_of_time":
            print("Time is up; the same command goes on from here.")
        case "interrupted":
            print("diffsplat: interrupted; the same command goes on from here", file=sys.stderr)


COMMANDS = _commands()
