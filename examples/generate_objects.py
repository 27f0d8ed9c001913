"""Generate two objects and write each as splats, as a picture of four views, and as a turntable.

python examples/generate_objects.py outputs
"""

import sys
from pathlib import Path

from diffsplat.geometry import turntable_cameras
from diffsplat.io.formats import write_splats
from diffsplat.io.images import tile_images, write_image
from diffsplat.io.video import write_video
from diffsplat.pipelines import DiffSplatPipeline

PROMPTS = ["a red armchair", "a wooden barrel"]


def main(folder: Path) -> None:
    """Write the files of every prompt into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    pipe = DiffSplatPipeline.from_pretrained("mini")
    output = pipe(PROMPTS, seed=0)
    views = output.render(size=256).rgb
    frames = output.render(turntable_cameras(60, size=256)).rgb
    for index, prompt in enumerate(output.prompts):
        name = prompt.replace(" ", "-")
        write_splats(output.splats[index].visible(), folder / f"{name}.ply", force=True)
        write_image(tile_images(views[index]), folder / f"{name}.png", force=True)
        write_video(frames[index], folder / f"{name}.mp4", fps=20, force=True)
        print(folder / f"{name}.ply")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs"))
