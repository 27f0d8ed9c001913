"""Fit splats to images with the differentiable rasterizer.

A generated object is rendered from a ring of cameras, and grey splats are moved, turned, scaled and coloured until
they look like it from everywhere. Any images with known cameras can take the place of the renderings.

python examples/02_fit_splats.py --out outputs --steps 200
"""

from pathlib import Path

import torch
import tyro
from torch import Tensor

from diffsplat.core import Splats
from diffsplat.geometry import turntable_cameras
from diffsplat.io.image_files import tile_images, write_image
from diffsplat.io.splat_formats import write_splats
from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.render import render


def unconstrained(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Parameters without limits, of splats spread over a ball."""
    means = torch.randn(count, 3, generator=generator) * 0.25
    return {
        "means": means.requires_grad_(),
        "scales": torch.full((count, 3), -4.0).requires_grad_(),
        "quats": torch.randn(count, 4, generator=generator).requires_grad_(),
        "opacities": torch.full((count,), 0.5).requires_grad_(),
        "colors": torch.zeros(count, 3).requires_grad_(),
    }


def activated(raw: dict[str, Tensor]) -> Splats:
    """Splats ``[N]`` of the parameters."""
    return Splats(
        means=raw["means"],
        scales=raw["scales"].exp(),
        quats=torch.nn.functional.normalize(raw["quats"], dim=-1),
        opacities=raw["opacities"].sigmoid(),
        colors=raw["colors"].sigmoid(),
    )


def main(
    prompt: str = "a red armchair", out: Path = Path("outputs"), steps: int = 200, count: int = 4000
) -> None:
    """Write the fitted splats, and an image of the target above the fit."""
    out.mkdir(parents=True, exist_ok=True)
    cameras = turntable_cameras(8, 20.0, size=64)
    target = DiffSplatPipeline.from_pretrained("mini")(prompt).render(cameras).rgb[0]
    raw = unconstrained(count, torch.Generator().manual_seed(0))
    rates = {"means": 0.01, "scales": 0.03, "quats": 0.02, "opacities": 0.05, "colors": 0.05}
    optimizer = torch.optim.Adam([{"params": [raw[name]], "lr": rate} for name, rate in rates.items()])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        image = render(activated(raw), cameras, normals=False).rgb
        loss = (image - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}: {-10 * float(loss.detach().log10()):.1f} dB")
    fitted = activated({name: value.detach() for name, value in raw.items()})
    write_splats(fitted.visible(), out / "fitted.ply", force=True)
    rows = torch.cat([target, render(fitted, cameras, normals=False).rgb])
    write_image(tile_images(rows, columns=len(target)).clamp(0, 1), out / "fitted.png", force=True)
    print(out / "fitted.png")


if __name__ == "__main__":
    tyro.cli(main)
