"""An image to splats, with the embedded model or a released one, which has to be downloaded first.

python examples/03_image_to_splats.py shoe.png
diffsplat models download sd15 --image
python examples/03_image_to_splats.py shoe.png --model sd15
"""

from pathlib import Path

import tyro

from diffsplat.io.file_access import make_folder
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions
from diffsplat.pipelines.object_writing import write_object


def main(
    image: tyro.conf.Positional[Path],
    model: str = "mini",
    weights: Path | None = None,
    out: Path = Path("outputs"),
    steps: int | None = None,
) -> None:
    """Write splats and four views of the object in an image."""
    make_folder(out)
    pipe = ModelChoice(model, image=True, options=OpeningOptions(weights=weights)).open()
    # Its background is removed, and the elevation that it was taken from is estimated.
    (item,) = pipe(image=image, steps=steps).objects()
    print(f"taken from {item.elevation_deg:.0f} degrees above the horizon")
    for suffix in (".ply", ".png"):
        write_object(item, out / f"{image.stem}{suffix}", force=True)
    print(out / f"{image.stem}.ply")


if __name__ == "__main__":
    tyro.cli(main)
