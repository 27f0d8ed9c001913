"""A prompt in the shape of another object: depth, normals or edges of its first view guide a released model.

diffsplat models download sd15 --control depth
python examples/04_control_maps.py "a golden throne" chair.ply --kind depth
"""

from pathlib import Path

import torch
import tyro

from diffsplat.io.image_files import tile_images, write_image
from diffsplat.io.splat_formats import write_splats
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.pipelines.control_maps import control_maps_from
from diffsplat.pretrained.catalogue import ControlKind


def main(
    prompt: tyro.conf.Positional[str],
    shape: tyro.conf.Positional[Path],
    kind: ControlKind = "depth",
    weights: Path | None = None,
    out: Path = Path("outputs"),
    steps: int | None = None,
) -> None:
    """Write the control map, and splats and four views of what follows it."""
    out.mkdir(parents=True, exist_ok=True)
    control = control_maps_from(shape, kind)
    write_image(control, out / f"{kind}.png", force=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = DiffSplatPipeline.from_pretrained("sd15", weights=weights, control=kind).to(device)
    generated = pipe(prompt, control=control, steps=steps)
    write_splats(generated.splats[0].visible().to("cpu"), out / "controlled.ply", force=True)
    write_image(tile_images(generated.render(size=256).rgb[0].cpu()), out / "controlled.png", force=True)
    print(out / "controlled.ply")


if __name__ == "__main__":
    tyro.cli(main)
