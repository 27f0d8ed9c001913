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
from diffsplat.training.stage_chain import ChainConfig, train_chain


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
        steps: of every stage, instead of the recipes' (a real training takes days on a CPU).
        size: pixels of the training views.
        prompt: what the trained model is asked for.
    """
    data = out / "data"
    print(ingest(folder_objects(meshes), data, RenderOptions(size=size)))
    config = ChainConfig()
    if steps is not None:
        config = shortened(config, steps)
    status = train_chain(config, (data,), out)
    if status != "finished":
        print(f"{status}: the same command goes on from here")
        return
    pipe = DiffSplatPipeline.from_pretrained(out / "model")
    write_splats(pipe(prompt).splats[0].visible(), out / "first.ply", force=True)
    print(out / "first.ply")


def shortened(config: ChainConfig, steps: int) -> ChainConfig:
    """The recipes with another number of steps."""
    stages = {
        name: replace(stage, trainer=replace(stage.trainer, steps=steps))
        for name, stage in (
            ("reconstruction", config.reconstruction),
            ("autoencoder", config.autoencoder),
            ("diffusion", config.diffusion),
            ("refiner", config.refiner),
        )
    }
    return replace(config, **stages)


if __name__ == "__main__":
    tyro.cli(main)
