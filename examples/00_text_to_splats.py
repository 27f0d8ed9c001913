"""A sentence to splats, a picture and a turntable, with the model that comes with the package.

python examples/00_text_to_splats.py "a red armchair" "a blue sofa" --out outputs
"""

from pathlib import Path

import tyro

from diffsplat.geometry import turntable_cameras
from diffsplat.io.image_files import tile_images, write_image
from diffsplat.io.splat_formats import write_splats
from diffsplat.io.video_files import write_video
from diffsplat.pipelines import DiffSplatPipeline


def main(
    prompts: tyro.conf.Positional[tuple[str, ...]] = ("a red armchair",),
    out: Path = Path("outputs"),
    seed: int = 0,
    frames: int = 60,
) -> None:
    """Write the files of every prompt into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    pipe = DiffSplatPipeline.from_pretrained("mini")
    generated = pipe(list(prompts), seed=seed)
    views = generated.render(size=256).rgb
    around = generated.render(turntable_cameras(frames, size=256)).rgb
    for index, prompt in enumerate(generated.prompts):
        name = prompt.replace(" ", "-")
        write_splats(generated.splats[index].visible(), out / f"{name}.ply", force=True)
        write_image(tile_images(views[index]), out / f"{name}.png", force=True)
        write_video(around[index], out / f"{name}.mp4", fps=20, force=True)
        print(out / f"{name}.ply")


if __name__ == "__main__":
    tyro.cli(main)
