"""The picture in the README, made by the embedded model: python scripts/readme_picture.py docs/images/objects.png"""

import sys
from pathlib import Path

from diffsplat.geometry import orbit_cameras
from diffsplat.io.image_files import tile_images, write_image
from diffsplat.pipelines import DiffSplatPipeline

PROMPTS = (
    "a red armchair",
    "a blue sofa",
    "a red car",
    "a yellow lamp",
    "a green bottle",
    "a purple bowl",
    "a wooden crate",
    "a burger",
)


def main(path: Path) -> None:
    """One view of one object for every prompt, seed 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pipe = DiffSplatPipeline.from_pretrained("mini")
    camera = orbit_cameras([35.0], 20.0, width=256, height=256)
    images = pipe(list(PROMPTS), seed=0).render(camera).rgb[:, 0]
    write_image(tile_images(images, columns=4), path, force=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
