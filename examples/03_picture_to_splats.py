"""A picture to splats with a released model, which has to be downloaded first.

diffsplat models download sd15 --image
python examples/03_picture_to_splats.py shoe.png --model sd15
"""

from pathlib import Path

import torch
import tyro

from diffsplat.io.image_files import tile_images, write_image
from diffsplat.io.splat_formats import write_splats
from diffsplat.pipelines import DiffSplatPipeline


def main(
    picture: tyro.conf.Positional[Path],
    model: str = "sd15",
    weights: Path | None = None,
    out: Path = Path("outputs"),
    steps: int | None = None,
) -> None:
    """Write splats and four views of the object that a picture shows."""
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = DiffSplatPipeline.from_pretrained(model, weights=weights, image=True).to(device)
    # Cut out, centred, on white; the elevation that it was taken from is estimated.
    shown = pipe.prepare(image=picture)
    print(f"taken from {pipe.choose_elevation(shown):.0f} degrees above the horizon")
    generated = pipe(image=picture, steps=steps)
    write_splats(generated.splats[0].visible().to("cpu"), out / f"{picture.stem}.ply", force=True)
    write_image(tile_images(generated.render(size=256).rgb[0].cpu()), out / f"{picture.stem}.png", force=True)
    print(out / f"{picture.stem}.ply")


if __name__ == "__main__":
    tyro.cli(main)
