"""The compiled backend against the float64 reference."""

import gc
import hashlib
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from diffsplat.core import Cameras, Rendering, Splats
from diffsplat.render import render
from diffsplat.render.cpu_kernels import compilation_cache
from support.render_scenes import (
    FIELDS,
    FOCAL,
    footprint_alpha,
    gradients,
    in_front,
    leaves,
    ring,
    shell,
    single,
)

BACKGROUND = (0.2, 0.5, 0.9)
IMAGES = ("rgb", "alpha", "depth", "normal")


def _images(image: Rendering) -> dict[str, torch.Tensor]:
    """What is compared: depth weighs as much as its pixel is covered."""
    found = {"rgb": image.rgb, "alpha": image.alpha, "depth": image.depth * image.alpha.detach()}
    return found if image.normal is None else found | {"normal": image.normal}


def _compare(splats: Splats, cameras: Cameras, normals: bool, flips: int = 0) -> None:
    """Images to 1e-5 and gradients to 1e-4, but for at most ``flips`` pixels where a threshold falls differently.

    Those pixels are counted, and left out of the loss whose gradients are compared.
    """
    single_precision, double_precision = leaves(splats.to(torch.float32)), leaves(splats)
    fast = render(
        single_precision, cameras.to(torch.float32), background=BACKGROUND, backend="cpu", normals=normals
    )
    exact = render(double_precision, cameras, background=BACKGROUND, backend="reference", normals=normals)
    got, expected = _images(fast), _images(exact)
    wrong = torch.zeros_like(exact.alpha, dtype=torch.bool)
    for name, image in got.items():
        wrong |= ((image - expected[name]).abs() > 1e-5).any(dim=-3, keepdim=True)
    assert int(wrong.sum()) <= flips
    generator = torch.Generator().manual_seed(1)
    losses = [torch.zeros((), dtype=torch.float64) for _ in range(2)]
    for name, image in got.items():
        weights = torch.randn(image.shape, generator=generator) * ~wrong
        losses[0] = losses[0] + (image * weights).sum()
        losses[1] = losses[1] + (expected[name] * weights).sum()
    for loss in losses:
        loss.backward()
    for name, reference in gradients(double_precision).items():
        error = (gradients(single_precision)[name] - reference).norm()
        assert float(error) <= 1e-4 * float(reference.norm()), name


@pytest.mark.parametrize("normals", [False, True])
def test_images_and_gradients_agree_with_the_reference(normals: bool) -> None:
    _compare(shell(3000), ring(3, 64, 48), normals, flips=12)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 33), (8, 2), (130, 5)])
def test_any_image_size(width: int, height: int) -> None:
    _compare(shell(400, seed=width), ring(2, width, height), True, flips=2)


def test_untrained_network() -> None:
    # Everything half-transparent and large: pixels finish early.
    splats = shell(3000, seed=5, size=0.06)
    opacities = torch.full_like(splats.opacities, 0.5)
    thick = Splats(splats.means, splats.scales, splats.quats, opacities, splats.colors)
    _compare(thick, ring(1, 48, 48), False, flips=12)


@pytest.mark.parametrize("size", [20.0, 1e-6])
def test_huge_and_tiny_splats(size: float) -> None:
    splats = shell(60, seed=2)
    scaled = Splats(splats.means, splats.scales / 0.03 * size, splats.quats, splats.opacities, splats.colors)
    _compare(scaled, ring(2, 40, 30), False, flips=4)


def test_needles_and_discs_do_not_blow_up() -> None:
    # A ratio of 2000 between the axes, seen from all sides.
    splats = shell(200, seed=4)
    scales = torch.tensor([[0.2, 1e-4, 1e-4], [0.2, 0.2, 1e-4]], dtype=torch.float64).repeat(100, 1)
    thin = Splats(splats.means, scales, splats.quats, splats.opacities, splats.colors)
    cameras = ring(2, 40, 40)
    fast = render(thin.to(torch.float32), cameras.to(torch.float32), backend="cpu")
    exact = render(thin, cameras, backend="reference")
    error = (fast.rgb - exact.rgb).abs().amax(dim=1)
    assert float(error.max()) < 0.05
    assert int((error > 1e-3).sum()) <= 8


def test_splats_around_and_behind_the_camera() -> None:
    splats = shell(500, seed=6)
    inside = Cameras(
        torch.eye(4, dtype=torch.float64)[None],
        torch.tensor([[0.6, 0.6, 0.5, 0.5]], dtype=torch.float64),
        32,
        24,
    )
    _compare(splats, inside, True, flips=4)


def test_one_gaussian_has_the_closed_form() -> None:
    image = render(single().to(torch.float32), in_front(2.0, 31, 31, torch.float32), backend="cpu")
    for offset in (0, 1, 2, 5):
        alpha = footprint_alpha(0.8, 0.1 * FOCAL * 31 / 2.0, offset)
        assert image.alpha[0, 0, 15, 15 + offset].item() == pytest.approx(alpha, abs=1e-6)
        expected = np.array([0.25, 0.5, 0.75]) * alpha + 1 - alpha
        assert image.rgb[0, :, 15 + offset, 15].numpy() == pytest.approx(expected, abs=1e-6)
        assert image.depth[0, 0, 15, 15 - offset].item() == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("means", [[[0.0, 0.0, 3.0]], [[0.0, 50.0, 0.0]], [[0.0, 0.0, -200.0]]])
def test_nothing_to_see(means: list[list[float]]) -> None:
    """Behind the camera, outside the image, beyond the far plane."""
    splats = leaves(single(means=means).to(torch.float32))
    image = render(splats, in_front(2.0, 5, 4, torch.float32), background=BACKGROUND, backend="cpu")
    assert torch.equal(image.rgb[0], torch.tensor(BACKGROUND)[:, None, None].expand(3, 4, 5))
    assert not image.alpha.any()
    assert not image.depth.any()
    image.rgb.sum().backward()
    assert all(not gradient.any() for gradient in gradients(splats).values())


def test_no_gaussians_at_all() -> None:
    none = shell(10).to(torch.float32).take(torch.zeros(10, dtype=torch.bool))
    image = render(none, ring(2, 6, 5, torch.float32), background=BACKGROUND, backend="cpu")
    assert torch.equal(image.rgb, torch.tensor(BACKGROUND)[:, None, None].expand(2, 3, 5, 6))


def test_repeats_bitwise_on_any_number_of_threads() -> None:
    splats, cameras = shell(5000).to(torch.float32), ring(2, 64, 64, torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            fields = leaves(splats)
            image = render(fields, cameras, backend="cpu")
            (image.rgb.square().sum() + image.depth.sum()).backward()
            results.append((image.rgb.detach(), image.depth.detach(), *gradients(fields).values()))
    finally:
        torch.set_num_threads(before)
    for first, *others in zip(*results, strict=True):
        assert all(torch.equal(first, other) for other in others)


def test_batches_of_objects_and_cameras() -> None:
    objects = [shell(300, seed=seed).to(torch.float32) for seed in range(6)]
    cameras = ring(5, 20, 16, torch.float32)
    batch = Splats(
        *(
            torch.stack([getattr(o, name) for o in objects]).reshape(2, 3, *getattr(objects[0], name).shape)
            for name in FIELDS
        )
    )
    views = cameras.map(lambda field: field.expand(2, 3, *field.shape))
    together = render(batch, views, backend="cpu")
    assert together.rgb.shape == (2, 3, 5, 3, 16, 20)
    assert together.normal is not None
    assert together.normal.shape == (2, 3, 5, 3, 16, 20)
    for index, one in enumerate(objects):
        for view in range(5):
            alone = render(one, cameras[view : view + 1], backend="cpu")
            assert torch.equal(together.rgb[index // 3, index % 3, view], alone.rgb[0])
            assert torch.equal(together.depth[index // 3, index % 3, view], alone.depth[0])


def test_gradients_of_a_batch_are_those_of_its_parts() -> None:
    first, second = (shell(200, seed=seed).to(torch.float32) for seed in (1, 2))
    cameras = ring(2, 24, 24, torch.float32)
    batch = leaves(Splats(*(torch.stack([getattr(first, n), getattr(second, n)]) for n in FIELDS)))
    render(batch, cameras.map(lambda f: f.expand(2, *f.shape)), backend="cpu").rgb.square().sum().backward()
    for index, part in enumerate((first, second)):
        alone = leaves(part)
        render(alone, cameras, backend="cpu").rgb.square().sum().backward()
        for name, gradient in gradients(alone).items():
            assert torch.equal(gradients(batch)[name][index], gradient)


def test_half_precision_is_rendered_in_full() -> None:
    splats, cameras = shell(100).to(torch.float32), ring(1, 16, 16, torch.float32)
    halved = Splats(splats.means, splats.scales, splats.quats, splats.opacities, splats.colors.bfloat16())
    exact = Splats(splats.means, splats.scales, splats.quats, splats.opacities, halved.colors.float())
    coarse = render(halved, cameras, backend="cpu")
    assert coarse.rgb.dtype == torch.float32
    assert torch.equal(coarse.rgb, render(exact, cameras, backend="cpu").rgb)


def test_images_may_be_changed_in_place() -> None:
    fields = leaves(shell(100).to(torch.float32))
    image = render(fields, ring(1, 12, 12, torch.float32), backend="cpu")
    image.rgb.mul_(2)
    image.rgb.sum().backward()
    once = leaves(shell(100).to(torch.float32))
    render(once, ring(1, 12, 12, torch.float32), backend="cpu").rgb.sum().backward()
    assert torch.equal(gradients(fields)["colors"], 2 * gradients(once)["colors"])


def test_changing_an_input_before_the_backward_pass_is_refused() -> None:
    fields = shell(50).to(torch.float32)
    colors = fields.colors.clone().requires_grad_()
    opacities = fields.opacities.clone()
    image = render(
        Splats(fields.means, fields.scales, fields.quats, opacities, colors),
        ring(1, 8, 8, torch.float32),
        backend="cpu",
    )
    opacities.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        image.rgb.sum().backward()


def test_the_digest_of_the_sources_covers_every_file_of_the_kernels() -> None:
    """Kernels inline functions and constants of other files: the cache must be keyed on all of them."""
    folder = Path(compilation_cache.__file__).parent
    files = [*sorted(folder.glob("*.py")), folder.parent / "rasterization_constants.py"]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert compilation_cache.sources_digest() == wanted


def test_compiled_code_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "tripling.py"
    source.write_text("def triple(x):\n    return x * 3\n")
    monkeypatch.syspath_prepend(tmp_path)  # numba imports the module of code that it loads
    triple = runpy.run_path(str(source), run_name="tripling")["triple"]

    def compiled_anew() -> bool:
        dispatcher = compilation_cache.kernel(triple)
        assert dispatcher(2.0) == 6
        missed = bool(dispatcher.stats.cache_misses)
        del dispatcher
        gc.collect()
        return missed

    assert compiled_anew()
    assert not compiled_anew()
    monkeypatch.setattr(compilation_cache, "sources_digest", lambda: "of other sources")
    (index,) = tmp_path.rglob("*.nbi")
    index.write_bytes(index.read_bytes()[:-100])  # what cannot be unpickled any more is left alone
    assert compiled_anew()
    assert not compiled_anew()
