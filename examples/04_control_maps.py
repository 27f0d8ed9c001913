"""A prompt in the shape of another object: depth, normals or edges of its first view guide the model.

python examples/04_control_maps.py "a yellow chair" chair.ply --kind depth
diffsplat models download sd15 --control depth
python examples/04_control_maps.py "a golden throne" chair.ply --kind depth --model sd15
"""

from pathlib import Path

import tyro

from diffsplat.io.file_access import make_folder
from diffsplat.io.image_files import write_image
from diffsplat.pipelines.control_maps import control_maps_from
from diffsplat.pipelines.model_opening import ModelChoice, OpeningOptions
from diffsplat.pipelines.object_writing import write_object
from diffsplat.pretrained.release_catalogue import ControlKind


def main(
    prompt: tyro.conf.Positional[str],
    shape: tyro.conf.Positional[Path],
    kind: ControlKind = "depth",
    model: str = "mini",
    weights: Path | None = None,
    out: Path = Path("outputs"),
    steps: int | None = None,
) -> None:
    """Write the control map, and splats and four views of the object that follows it."""
    make_folder(out)
    control = control_maps_from(shape, kind)
    write_image(control, out / f"{kind}.png", force=True)
    pipe = ModelChoice(model, controls=(kind,), options=OpeningOptions(weights=weights)).open()
    (item,) = pipe(prompt, control=control, steps=steps).objects()
    for suffix in (".ply", ".png"):
        write_object(item, out / f"controlled{suffix}", force=True)
    print(out / "controlled.ply")


if __name__ == "__main__":
    tyro.cli(main)
