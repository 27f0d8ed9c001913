"""Prompts to splats, images and turntables, with the model that comes with the package.

python examples/00_text_to_splats.py "a red armchair" "a blue sofa" --out outputs
"""

from pathlib import Path

import tyro

from diffsplat.io.file_access import make_folder
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.object_writing import write_object
from diffsplat.pipelines.prompt_file_names import slug


def main(
    prompts: tyro.conf.Positional[tuple[str, ...]] = ("a red armchair",),
    out: Path = Path("outputs"),
    seed: int = 0,
    frames: int = 60,
) -> None:
    """Write the files of every prompt into ``out``."""
    make_folder(out)
    pipe = DiffSplatPipeline.from_pretrained("mini")
    for item in pipe(list(prompts), seed=seed).objects():
        for suffix in (".ply", ".png", ".mp4"):
            write_object(item, out / f"{slug(item.prompt)}{suffix}", frames=frames, force=True)
        print(out / f"{slug(item.prompt)}.ply")


if __name__ == "__main__":
    tyro.cli(main)
