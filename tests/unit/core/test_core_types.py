"""What the core types accept, refuse and keep."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffsplat.core import Cameras, Rendering, SplatGrid, Splats, Views
from diffsplat.geometry import ring_cameras

NAN, INF = float("nan"), float("inf")


def splat_fields(*batch: int, count: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    quats = torch.randn(*batch, count, 4, generator=generator)
    return {
        "means": torch.randn(*batch, count, 3, generator=generator),
        "scales": torch.rand(*batch, count, 3, generator=generator) + 0.1,
        "quats": quats / quats.norm(dim=-1, keepdim=True),
        "opacities": torch.rand(*batch, count, generator=generator),
        "colors": torch.rand(*batch, count, 3, generator=generator),
    }


def filled(tensor: Tensor, value: float) -> Tensor:
    """A copy whose first number is ``value``."""
    copy = tensor.clone()
    copy.view(-1)[0] = value
    return copy


SPLAT_ERRORS: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
    ("means", lambda t: t[..., :2], r"means has shape \(5, 2\), expected \[\.\.\., any, 3\]"),
    ("means", lambda t: t[0], "means has shape"),
    ("scales", lambda t: t[:4], r"scales has shape \(4, 3\), expected \[\.\.\., 5, 3\]"),
    ("quats", lambda t: t[..., :3], r"expected \[\.\.\., 5, 4\]"),
    ("opacities", lambda t: t[:, None], "opacities"),
    ("colors", lambda t: t[None], r"leading dimensions \(1,\), expected \(\)"),
    ("colors", lambda t: t.long(), "int64, expected a floating-point"),
    ("means", lambda t: filled(t, NAN), "1 NaN or infinite"),
    ("means", lambda t: filled(t, INF), "1 NaN or infinite"),
    ("scales", lambda t: filled(t, -INF), "1 NaN or infinite"),
    ("scales", lambda t: filled(t, 0.0), "the value 0, expected positive"),
    ("scales", lambda t: filled(t, -1.0), "the value -1, expected positive"),
    ("quats", lambda t: t * 2, "vector of length 2, expected unit"),
    ("quats", lambda t: t * 0, "vector of length 0, expected unit"),
    ("opacities", lambda t: filled(t, 1.5), r"to 1.5, expected values in \[0, 1\]"),
    ("opacities", lambda t: filled(t, -0.25), r"spans -0.25 to"),
    ("colors", lambda t: filled(t, 255.0), "to 255, expected"),
    ("opacities", lambda t: t.to("meta"), "is on meta, expected cpu"),
]


@pytest.mark.parametrize(("name", "spoil", "words"), SPLAT_ERRORS)
def test_splats_refuse(name: str, spoil: Callable[[Tensor], Tensor], words: str):
    fields = splat_fields()
    with pytest.raises(ValueError, match=words) as caught:
        Splats(**{**fields, name: spoil(fields[name])})
    assert f"Splats.{name}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_splats_forgive_rounding_but_not_more():
    fields = splat_fields()
    Splats(**{**fields, "opacities": filled(fields["opacities"], 1.0005), "quats": fields["quats"] * 1.0005})
    with pytest.raises(ValueError, match="expected values"):
        Splats(**{**fields, "opacities": filled(fields["opacities"], 1.01)})


def test_huge_finite_values_are_not_taken_for_infinite_ones():
    """Their sum overflows, which the quick check must not mistake for a bad value."""
    fields = splat_fields()
    Splats(**{**fields, "means": torch.full((5, 3), 3e38)})
    fields["means"][0] = torch.tensor([3e38, NAN, 1.0])
    with pytest.raises(ValueError, match="1 NaN"):
        Splats(**fields)


def test_splats_shapes_indexing_and_taking():
    splats = Splats(**splat_fields(2, 3))
    assert (splats.batch_shape, splats.count) == ((2, 3), 5)
    assert splats[1].batch_shape == (3,)
    assert torch.equal(splats[1][2].colors, splats.colors[1, 2])
    assert splats[:1].batch_shape == (1, 3)
    single = splats[0][0]
    chosen = single.take(torch.tensor([4, 0]))
    assert torch.equal(chosen.means, single.means[[4, 0]])
    visible = single.visible(0.5)
    assert torch.equal(visible.opacities, single.opacities[single.opacities >= 0.5])
    with pytest.raises(ValueError, match="cannot be indexed"):
        single[0]
    with pytest.raises(ValueError, match="needs an unbatched set"):
        splats.take(torch.tensor([0]))


def test_splats_may_be_empty_and_cast():
    empty = Splats(**splat_fields(count=0))
    assert empty.count == 0
    assert Splats(**splat_fields()).to(torch.float64).dtype == torch.float64
    fields = splat_fields()
    fields["means"].requires_grad_()
    assert not Splats(**fields).detach().means.requires_grad


def test_sets_are_joined_along_the_objects():
    parts = [Splats(**splat_fields(count)) for count in (1, 2)]
    joined = Splats.concatenate(parts)
    assert joined.batch_shape == (3,)
    for name in splat_fields():
        tensor = getattr(joined, name)
        assert torch.equal(tensor[:1], getattr(parts[0], name))
        assert torch.equal(tensor[1:], getattr(parts[1], name))


def camera_fields(*batch: int) -> dict:
    pose = torch.eye(4).repeat(*batch, 1, 1)
    pose[..., :3, 3] = torch.tensor([0.0, 0.0, 2.0])
    return {
        "camera_to_world": pose,
        "intrinsics": torch.tensor([1.4, 1.4, 0.5, 0.5]).repeat(*batch, 1),
        "width": 8,
        "height": 6,
    }


CAMERA_ERRORS = [
    ({"camera_to_world": torch.eye(3).repeat(2, 1, 1)}, r"camera_to_world has shape \(2, 3, 3\)"),
    ({"intrinsics": torch.ones(2, 3)}, r"intrinsics has shape \(2, 3\)"),
    ({"intrinsics": torch.ones(3, 4)}, r"leading dimensions \(3,\), expected \(2,\)"),
    ({"camera_to_world": torch.eye(4).long().repeat(2, 1, 1)}, "expected a floating-point"),
    ({"camera_to_world": torch.full((2, 4, 4), NAN)}, "32 NaN or infinite"),
    ({"intrinsics": torch.tensor([[1.0, 1, NAN, 0], [1, 1, 0, 0]])}, "1 NaN or infinite"),
    ({"intrinsics": torch.tensor([[1.0, 0, 0.5, 0.5]] * 2)}, "the value 0, expected positive"),
    ({"intrinsics": torch.tensor([[-1.4, 1, 0.5, 0.5]] * 2)}, "the value -1.4, expected positive"),
    ({"camera_to_world": torch.diag(torch.tensor([2.0, 2, 2, 1])).repeat(2, 1, 1)}, "off orthonormal"),
    ({"camera_to_world": torch.diag(torch.tensor([-1.0, 1, 1, 1])).repeat(2, 1, 1)}, "mirrored"),
    ({"camera_to_world": torch.diag(torch.tensor([1.0, 1, 1, 0])).repeat(2, 1, 1)}, "last row other than"),
    ({"width": 0}, "width is 0, expected a positive whole number"),
    ({"height": -3}, "height is -3"),
    ({"height": 6.0}, "height is 6.0, expected a positive whole number"),
]


@pytest.mark.parametrize(("change", "words"), CAMERA_ERRORS)
def test_cameras_refuse(change: dict, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        Cameras(**{**camera_fields(2), **change})
    assert str(caught.value).startswith("Cameras.")
    assert "\n" not in str(caught.value)


def test_cameras_index_resize_and_cast():
    cameras = Cameras(**camera_fields(3, 2))
    assert cameras.batch_shape == (3, 2)
    assert cameras[1, 0].batch_shape == ()
    assert cameras[:, :1].batch_shape == (3, 1)
    resized = cameras.resized(80, 60)
    assert (resized.width, resized.height) == (80, 60)
    assert torch.equal(resized.intrinsics, cameras.intrinsics)
    assert cameras[0, 0].pixel_intrinsics.tolist() == pytest.approx([11.2, 8.4, 4, 3])
    assert cameras.to(torch.float64).world_to_camera.dtype == torch.float64
    with pytest.raises(ValueError, match="cannot be indexed"):
        cameras[0, 0][0]


def view_fields() -> dict:
    return {
        "image": torch.rand(1, 2, 3, 6, 8),
        "mask": torch.rand(1, 2, 1, 6, 8),
        "normal": torch.rand(1, 2, 3, 6, 8),
        "coord": torch.rand(1, 2, 3, 6, 8),
        "depth": torch.rand(1, 2, 1, 6, 8) * 3,
        "cameras": Cameras(**camera_fields(1, 2)),
        "prompt": ("a red armchair",),
    }


VIEW_ERRORS = [
    ({"image": torch.rand(1, 2, 4, 6, 8)}, "image has shape"),
    ({"mask": torch.rand(1, 2, 1, 8, 6)}, "mask has shape"),
    ({"normal": torch.rand(1, 3, 3, 6, 8)}, r"normal has leading dimensions \(1, 3\), expected \(1, 2\)"),
    ({"coord": torch.full((1, 2, 3, 6, 8), 2.0)}, "coord spans 2 to 2"),
    ({"image": torch.full((1, 2, 3, 6, 8), -1.0)}, "image spans -1 to -1"),
    ({"depth": torch.full((1, 2, 1, 6, 8), -1.0)}, "depth spans -1 to -1"),
    ({"depth": torch.full((1, 2, 1, 6, 8), INF)}, "depth has 96 NaN or infinite"),
    ({"prompt": ("a", "b")}, "2 captions, expected 1"),
    ({"cameras": Cameras(**camera_fields(2))}, r"leading dimensions \(2,\), expected \[B, V\]"),
]


@pytest.mark.parametrize(("change", "words"), VIEW_ERRORS)
def test_views_refuse(change: dict, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        Views(**{**view_fields(), **change})
    assert str(caught.value).startswith("Views.")


def test_views_join_and_split():
    first, second = Views(**view_fields()), Views(**{**view_fields(), "prompt": ("a barrel",)})
    joined = Views.concatenate([first, second])
    assert (joined.batch_size, joined.count) == (2, 2)
    assert joined.prompt == ("a red armchair", "a barrel")
    assert torch.equal(joined.depth[1:], second.depth)
    assert joined.cameras.batch_shape == (2, 2)
    kept = joined.take(slice(1, 2))
    assert kept.count == 1
    assert torch.equal(kept.image, joined.image[:, 1:2])
    assert kept.prompt == joined.prompt
    assert Views(**{**view_fields(), "prompt": ()}).prompt == ()
    with pytest.raises(ValueError, match="no parts"):
        Views.concatenate([])


def test_renderings_refuse_sizes_that_differ():
    rgb, alpha, depth = torch.zeros(2, 3, 6, 8), torch.zeros(2, 1, 6, 8), torch.zeros(2, 1, 6, 8)
    assert Rendering(rgb, alpha, depth).normal is None
    with pytest.raises(ValueError, match=r"Rendering\.alpha has shape"):
        Rendering(rgb, alpha[..., :7], depth)
    with pytest.raises(ValueError, match=r"Rendering\.depth has leading dimensions"):
        Rendering(rgb, alpha, depth[:1])
    with pytest.raises(ValueError, match=r"Rendering\.normal has shape"):
        Rendering(rgb, alpha, depth, normal=alpha)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.zeros(1, 2, 11, 4, 4), "values has shape"),
        (torch.zeros(2, 12, 4, 4), "values has shape"),
        (torch.zeros(1, 2, 12, 4, 4).long(), "floating-point"),
        (torch.full((1, 2, 12, 4, 4), NAN), "384 NaN"),
        (torch.full((1, 2, 12, 4, 4), 1.5), r"spans 1.5 to 1.5, expected values in \[-1, 1\]"),
    ],
)
def test_grids_refuse(values: Tensor, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        SplatGrid(values)
    assert str(caught.value).startswith("SplatGrid.values")


def test_packing_a_grid_is_undone():
    grid = SplatGrid(torch.rand(3, 4, 12, 5, 6) * 2 - 1)
    packed = grid.pack()
    assert packed.shape == (12, 12, 5, 6)
    assert torch.equal(packed[5], grid.values[1, 1])
    assert torch.equal(SplatGrid.unpack(packed, 4).values, grid.values)
    for views in (5, 0, -1):
        with pytest.raises(ValueError, match="cannot be split"):
            SplatGrid.unpack(packed, views)


def test_a_grid_decodes_channel_by_channel():
    """One pixel, camera on +Z at distance 2: all numbers by hand from the table of the conventions."""
    values = torch.zeros(1, 1, 12, 1, 1)
    values[0, 0, :, 0, 0] = torch.tensor([-1, 0, 1, -1, 0, 1, 0.3, 0, 0, 0.4, 0.5, -0.25])
    pose = torch.diag(torch.tensor([1.0, -1, -1, 1]))[None, None].clone()
    pose[0, 0, 2, 3] = 2
    cameras = Cameras(pose, torch.tensor([1.4, 1.4, 0.5, 0.5])[None, None], width=64, height=64)
    splats = SplatGrid(values).to_splats(cameras)
    assert splats.colors[0].tolist() == [[0, 0.5, 1]]
    assert splats.scales[0, 0].tolist() == pytest.approx([0.02, 0.01025, 0.0005])
    assert splats.quats[0, 0].tolist() == pytest.approx([0.6, 0, 0, 0.8])
    assert splats.opacities[0].tolist() == [0.75]
    # The only pixel's centre is the principal point; camera z is 2 - 0.25, so world z is 0.25.
    assert splats.means[0, 0].tolist() == pytest.approx([0, 0, 0.25], abs=1e-6)


def test_gaussians_follow_views_then_rows_then_columns():
    values = torch.zeros(1, 2, 12, 2, 3)
    values[:, :, 0] = torch.arange(12.0).view(1, 2, 2, 3) / 12
    cameras = Cameras(**{**camera_fields(1, 2), "width": 3, "height": 2})
    colors = SplatGrid(values).to_splats(cameras).colors[0, :, 0]
    torch.testing.assert_close(colors, torch.arange(12.0) / 24 + 0.5)


def test_a_grid_without_rotation_gets_the_identity_and_finite_gradients():
    values = torch.zeros(1, 1, 12, 2, 2, requires_grad=True)
    cameras = Cameras(**{**camera_fields(1, 1), "width": 2, "height": 2})
    splats = SplatGrid(values).to_splats(cameras)
    assert splats.quats[0, 0].tolist() == [1, 0, 0, 0]
    sum(field.sum() for field in (splats.means, splats.scales, splats.quats, splats.opacities)).backward()
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()


def test_half_precision_grids_decode_in_single_precision():
    grid = SplatGrid((torch.rand(1, 1, 12, 4, 4) * 2 - 1).to(torch.bfloat16))
    splats = grid.to_splats(Cameras(**camera_fields(1, 1)))
    assert splats.means.dtype == torch.float32
    assert math.isclose(float(splats.quats.norm(dim=-1).max()), 1, abs_tol=1e-5)
    with pytest.raises(ValueError, match="leading dimensions"):
        grid.to_splats(Cameras(**camera_fields(1, 3)))


def test_cameras_for_objects_are_the_same_for_each() -> None:
    ring = ring_cameras(size=8)
    shared = ring.for_objects(3)
    assert shared.batch_shape == (3, 4)
    for index in range(3):
        assert torch.equal(shared[index].camera_to_world, ring.camera_to_world)
        assert torch.equal(shared[index].intrinsics, ring.intrinsics)
    with pytest.raises(ValueError, match=r"needs cameras \[V\], got the batch \(3, 4\)"):
        shared.for_objects(2)
