"""From a folder of meshes to a model of your own: render, train all stages, generate.

python examples/05_train_on_meshes.py MESHES --out runs/mine
"""

from dataclasses import replace
from pathlib import Path

import tyro

from diffsplat.data.mesh_ingestion import RenderOptions, ingest
from diffsplat.data.mesh_sources import folder_objects
from diffsplat.io.splat_formats import write_splats
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.training.recipes.embedded_mini_recipe import MINI
from diffsplat.training.recipes.model_recipe import Recipe
from diffsplat.training.run_folders import RunFolders
from diffsplat.training.stage_chain import train_recipe
from diffsplat.training.stages.stage_recipe import GradientTraining


def main(
    meshes: tyro.conf.Positional[Path],
    out: Path = Path("runs/mine"),
    steps: int | None = None,
    size: int = 128,
    prompt: str = "a chair",
) -> None:
    """Train on ``meshes``; run it again to go on after an interruption.

    Args:
        meshes: folder of .glb, .gltf, .obj, .ply, .stl or .off files, named after what they show.
        out: folder for everything.
        steps: of every stage, instead of the recipe's (a real training takes days on a CPU).
        size: pixels of the training views.
        prompt: for the first object of the trained model.
    """
    data = out / "data"
    print(ingest(folder_objects(meshes), data, RenderOptions(size=size)))
    recipe = MINI if steps is None else shortened(MINI, steps)
    status = train_recipe(recipe, RunFolders((data,), out))
    if status != "finished":
        print(f"{status}: the same command goes on from here")
        return
    pipe = DiffSplatPipeline.from_pretrained(out / "model")
    write_splats(pipe(prompt).splats[0].visible(), out / "first.ply", force=True)
    print(out / "first.ply")


def shortened(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with another number of steps."""
    stages = {
        name: replace(stage, trainer=replace(stage.trainer, steps=steps))
        if isinstance(stage, GradientTraining)
        else stage
        for name, stage in recipe.stages.items()
    }
    return replace(recipe, stages=stages)


if __name__ == "__main__":
    tyro.cli(main)
