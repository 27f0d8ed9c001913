"""glTF files as the specification has them: geometry by closed forms, colours by known texels."""

import base64
import json

import numpy as np
import pytest

from diffsplat.core.srgb import linear_to_srgb
from diffsplat.render.meshes.mesh_files import load_mesh
from diffsplat.render.meshes.mesh_renderer import MeshRenderer
from diffsplat.render.meshes.view_sets import FREE_VIEW, ViewSet
from support.gltf_files import SQUARE, SQUARE_INDICES, SQUARE_UV, GltfBuilder, percent_encoded, png

RED, BLUE, GREEN = (220, 20, 20, 255), (20, 20, 220, 255), (20, 220, 20, 255)
LEFT_RED = np.array([[RED] * 8 + [BLUE] * 8] * 16, dtype=np.uint8)


def load(tmp_path, builder, name="a.glb"):
    (tmp_path / name).write_bytes(builder if isinstance(builder, bytes) else builder.glb())
    return load_mesh(tmp_path / name)


def halves(mesh):
    """Mean colours of the left and right half of the front, without light."""
    (samples,) = MeshRenderer(mesh.normalized(), size=64).render(
        ViewSet((0.0,), (0.0,), (FREE_VIEW,)).cameras()
    )
    image = samples.unlit_image().astype(float)
    solid = image[..., 3] > 250
    columns = np.flatnonzero(solid.any(axis=0))
    middle = (columns[0] + columns[-1] + 1) // 2
    left, right = solid.copy(), solid.copy()
    left[:, middle - 2 :] = right[:, : middle + 2] = False
    return image[left][:, :3].mean(axis=0), image[right][:, :3].mean(axis=0)


def assert_halves(mesh, left, right, tolerance=12):
    got = halves(mesh)
    np.testing.assert_allclose(got[0], left[:3], atol=tolerance)
    np.testing.assert_allclose(got[1], right[:3], atol=tolerance)


def extent(mesh):
    low, high = mesh.bounds()
    return (high - low).tolist()


@pytest.mark.parametrize(("kind", "top"), [("i1", 127), ("u1", 255), ("i2", 32767), ("u2", 65535)])
def test_normalised_integers_stand_for_fractions(tmp_path, kind, top):
    builder = GltfBuilder()
    positions = (SQUARE + 0.5) * top if kind[0] == "u" else SQUARE * 2 * top
    index = builder.accessor(np.floor(positions).astype(kind), normalized=True)
    builder.mesh(positions=index)
    assert extent(load(tmp_path, builder)) == pytest.approx(
        [1, 1, 0] if kind[0] == "u" else [2, 2, 0], abs=2 / top
    )


def test_plain_integers_are_taken_as_they_are(tmp_path):
    builder = GltfBuilder()
    builder.mesh(positions=builder.accessor((SQUARE * 200).astype("i2")))
    builder.root["nodes"][0]["scale"] = [0.01, 0.02, 1]
    assert extent(load(tmp_path, builder)) == pytest.approx([2, 4, 0])


def test_normalised_texture_coordinates(tmp_path):
    uv = (SQUARE_UV * 65535).astype("u2")
    builder = GltfBuilder()
    index = builder.accessor(uv, normalized=True)
    assert_halves(load(tmp_path, builder.textured_square(LEFT_RED, uv=index)), RED, BLUE)


def test_sparse_values_and_accessors_without_a_view(tmp_path):
    builder = GltfBuilder()
    places = builder.view(np.array([1, 2], dtype="u1").tobytes())
    values = builder.view(np.array([[3, 0, 0], [3, 1, 0]], dtype="f4").tobytes())
    builder.root["accessors"].append(
        {
            "componentType": 5126,
            "count": 3,
            "type": "VEC3",
            "sparse": {
                "count": 2,
                "indices": {"bufferView": places, "componentType": 5121},
                "values": {"bufferView": values},
            },
        }
    )
    builder.mesh(positions=0, indices=None)
    mesh = load(tmp_path, builder)
    assert mesh.corners.tolist() == [[[0, 0, 0], [3, 0, 0], [3, 1, 0]]]


def test_interleaved_attributes(tmp_path):
    rows = np.concatenate([SQUARE, SQUARE_UV], axis=1)
    builder = GltfBuilder()
    view = builder.view(rows.tobytes(), byteStride=20)
    for width, offset in ((3, 0), (2, 12)):
        builder.root["accessors"].append(
            {
                "bufferView": view,
                "byteOffset": offset,
                "componentType": 5126,
                "count": 4,
                "type": f"VEC{width}",
            }
        )
    index = builder.texture(LEFT_RED)
    builder.root["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": index}}}]
    builder.mesh(positions=0, attributes={"TEXCOORD_0": 1}, material=0)
    assert_halves(load(tmp_path, builder), RED, BLUE)


@pytest.mark.parametrize(
    ("mode", "indices", "count"),
    [
        (5, [0, 1, 3, 2], 2),
        (5, [0, 1, 3, 65535, 1, 2, 3], 2),
        (6, [0, 1, 2, 3], 2),
        (4, [0, 1, 2, 0, 2, 3, 1], 2),
    ],
)
def test_strips_and_fans(tmp_path, mode, indices, count):
    builder = GltfBuilder()
    builder.mesh(indices=np.array(indices, dtype="u2"), mode=mode)
    mesh = load(tmp_path, builder)
    assert mesh.face_count == count
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    areas = np.cross(edges[:, 0], edges[:, 1]) / 2
    np.testing.assert_allclose(areas.sum(axis=0), [0, 0, 1], atol=1e-7)  # all triangles face the same way


def test_points_are_left_out_and_noted(tmp_path):
    builder = GltfBuilder()
    builder.mesh()
    builder.mesh(mode=0, indices=None)
    builder.root["meshes"][0]["primitives"] += builder.root["meshes"].pop()["primitives"]
    mesh = load(tmp_path, builder)
    assert mesh.face_count == 2
    assert [loss.text for loss in mesh.losses] == ["its points and lines are left out"]
    assert mesh.has_true_colors


@pytest.mark.parametrize("where", ["mesh", "node"])
def test_morph_targets_move_by_their_weights(tmp_path, where):
    builder = GltfBuilder()
    target = builder.accessor(np.array([[0, 0, 0], [0, 0, 0], [0, 4, 0], [0, 4, 0]], dtype="f4"))
    builder.mesh(targets=[{"POSITION": target}, {"POSITION": target}])
    holder = builder.root["meshes"][0] if where == "mesh" else builder.root["nodes"][0]
    holder["weights"] = [0.5, 0.25]
    assert extent(load(tmp_path, builder)) == pytest.approx([1, 4, 0])


def test_morph_targets_change_colours_and_texture_coordinates(tmp_path):
    builder = GltfBuilder().textured_square(LEFT_RED)
    (primitive,) = builder.root["meshes"][0]["primitives"]
    primitive["targets"] = [{"TEXCOORD_0": builder.accessor(np.full((4, 2), 0.5, dtype="f4"))}]
    builder.root["meshes"][0]["weights"] = [1.0]
    assert_halves(load(tmp_path, builder), BLUE, RED)


def test_a_skin_places_vertices_by_its_joints(tmp_path):
    """The upper corners hang half on a joint that is lifted by 4 and turned by nothing: they rise by 2."""
    builder = GltfBuilder()
    joints = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]], dtype="u1")
    weights = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]], dtype="f4")
    builder.mesh(attributes={"JOINTS_0": joints, "WEIGHTS_0": weights})
    inverse = np.tile(np.eye(4, dtype="f4").T.ravel(), (2, 1))
    inverse[1, 13] = -1.0  # bound one unit up
    builder.root["skins"] = [{"joints": [1, 2], "inverseBindMatrices": builder.accessor(inverse)}]
    builder.root["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},
        {"children": [2]},
        {"translation": [0, 5, 0]},
    ]
    builder.root["scenes"] = [{"nodes": [0, 1]}]
    mesh = load(tmp_path, builder)
    low, high = mesh.bounds()
    np.testing.assert_allclose(low, [-0.5, -0.5, 0], atol=1e-6)  # the node's own place does not count
    np.testing.assert_allclose(high, [0.5, 2.5, 0], atol=1e-6)


def test_instances(tmp_path):
    builder = GltfBuilder()
    half_turn = np.array([[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]], dtype="f4")
    builder.mesh()
    builder.root["nodes"][0] |= {
        "translation": [0, 0, 7],
        "extensions": {
            "EXT_mesh_gpu_instancing": {
                "attributes": {
                    "TRANSLATION": builder.accessor(np.array([[-2, 0, 0], [0, 0, 0], [2, 0, 0]], "f4")),
                    "ROTATION": builder.accessor((half_turn * 127).astype("i1"), normalized=True),
                    "SCALE": builder.accessor(np.array([[1, 1, 1], [1, 3, 1], [1, 1, 1]], "f4")),
                }
            }
        },
    }
    mesh = load(tmp_path, builder)
    assert mesh.face_count == 6
    assert extent(mesh) == pytest.approx([5, 3, 0])
    assert mesh.corners[..., 2] == pytest.approx(7)
    assert mesh.normals[2:4, 0, 2] == pytest.approx(-1)


@pytest.mark.parametrize("scale", [[0, 0, 0], [1, 0, 1]])
def test_nodes_without_size_are_no_obstacle(tmp_path, scale):
    builder = GltfBuilder()
    builder.mesh()
    builder.root["nodes"].append({"mesh": 0, "scale": scale})
    builder.root["scenes"][0]["nodes"].append(1)
    mesh = load(tmp_path, builder)
    assert mesh.face_count == 2
    assert np.isfinite(mesh.normals).all()


def test_invisible_nodes_and_other_scenes_are_left_out(tmp_path):
    builder = GltfBuilder()
    builder.mesh()
    hidden = {"mesh": 0, "extensions": {"KHR_node_visibility": {"visible": False}}}
    builder.root["nodes"] += [hidden, {"mesh": 0}]
    builder.root["scenes"] = [{"nodes": [2]}, {"nodes": [0, 1]}]
    builder.root["scene"] = 1
    assert load(tmp_path, builder).face_count == 2


def test_nodes_that_are_their_own_ancestors_end(tmp_path):
    builder = GltfBuilder()
    builder.mesh()
    builder.root["nodes"] += [{"mesh": 0, "children": [2]}, {"mesh": 0, "children": [1]}]
    builder.root["scenes"][0]["nodes"] += [1]
    mesh = load(tmp_path, builder)
    assert mesh.face_count == 2
    assert "their own ancestors" in mesh.losses[0].text


def transformed(offset=(0, 0), scale=(1, 1), rotation=0.0):
    return {"extensions": {"KHR_texture_transform": {"offset": offset, "scale": scale, "rotation": rotation}}}


@pytest.mark.parametrize(
    ("transform", "left", "right"),
    [
        (transformed(offset=(0.5, 0)), BLUE, RED),
        (transformed(scale=(0.25, 1)), RED, RED),
        (transformed(offset=(0.6, 0), scale=(0.25, 1)), BLUE, BLUE),
        (transformed(offset=(1, 1), rotation=np.pi), BLUE, RED),
    ],
)
def test_texture_transforms(tmp_path, transform, left, right):
    assert_halves(load(tmp_path, GltfBuilder().textured_square(LEFT_RED, reference=transform)), left, right)


def test_a_quarter_turn_of_a_texture_goes_counter_clockwise(tmp_path):
    """Upper half green, lower half red: a coordinate turned from +u to -v (upwards) makes the left half green.

    By the reference viewer's matrix u' = cos u + sin v, v' = cos v - sin u, here moved back by (0, 1).
    """
    pixels = np.array([[GREEN] * 16] * 8 + [[RED] * 16] * 8, dtype=np.uint8)
    reference = transformed(offset=(0, 1), rotation=np.pi / 2)
    # v' = 1 - u: the left edge looks up the bottom of the image.
    assert_halves(load(tmp_path, GltfBuilder().textured_square(pixels, reference=reference)), RED, GREEN)


def test_other_sets_of_texture_coordinates(tmp_path):
    builder = GltfBuilder()
    index = builder.texture(LEFT_RED)
    builder.root["materials"] = [
        {"pbrMetallicRoughness": {"baseColorTexture": {"index": index, "texCoord": 1}}}
    ]
    wrong = np.zeros((4, 2), dtype="f4")
    builder.mesh(attributes={"TEXCOORD_0": wrong, "TEXCOORD_1": SQUARE_UV}, material=0)
    assert_halves(load(tmp_path, builder), RED, BLUE)


@pytest.mark.parametrize(
    ("wrap", "left", "right"), [(10497, RED, BLUE), (33071, BLUE, BLUE), (33648, BLUE, RED)]
)
def test_samplers_beyond_the_image(tmp_path, wrap, left, right):
    builder = GltfBuilder()
    builder.root["samplers"] = [{"wrapS": wrap, "wrapT": wrap}]
    builder.textured_square(LEFT_RED, uv=SQUARE_UV + np.array([1, 0], dtype="f4"), texture={"sampler": 0})
    assert_halves(load(tmp_path, builder), left, right)


def test_sharp_texels(tmp_path):
    """Two texels enlarged to a square: with the nearest texel there is no mixed colour in the middle."""
    builder = GltfBuilder()
    builder.root["samplers"] = [{"magFilter": 9728}]
    builder.textured_square([[RED, BLUE]], texture={"sampler": 0})
    left, right = halves(load(tmp_path, builder))
    np.testing.assert_allclose([left, right], [RED[:3], BLUE[:3]], atol=1)


def alpha_image(mesh):
    (samples,) = MeshRenderer(mesh.normalized(), size=64).render(
        ViewSet((0.0,), (0.0,), (FREE_VIEW,)).cameras()
    )
    return samples.image()[..., 3] / 255


@pytest.mark.parametrize(
    ("mode", "cutoff", "expected"),
    [("OPAQUE", 0.5, 1.0), ("BLEND", 0.5, 0.4), ("MASK", 0.5, 0.0), ("MASK", 0.3, 1.0)],
)
def test_alpha_modes(tmp_path, mode, cutoff, expected):
    """The left half has an opacity of 0.4, the right one of 1."""
    pixels = LEFT_RED.copy()
    pixels[:, :8, 3] = 102
    builder = GltfBuilder().textured_square(pixels, alphaMode=mode, alphaCutoff=cutoff)
    alpha = alpha_image(load(tmp_path, builder))
    assert alpha[32, 22] == pytest.approx(expected, abs=0.01)
    assert alpha[32, 42] == pytest.approx(1.0)


@pytest.mark.parametrize(("mode", "expected"), [("OPAQUE", 1.0), ("BLEND", 0.4), ("MASK", 0.0)])
def test_alpha_modes_without_a_texture(tmp_path, mode, expected):
    builder = GltfBuilder()
    builder.root["materials"] = [
        {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.4]}, "alphaMode": mode}
    ]
    builder.mesh(material=0)
    np.testing.assert_allclose(load(tmp_path, builder).colors[..., 3], expected)


def test_vertex_colours_are_linear_and_multiplied(tmp_path):
    builder = GltfBuilder()
    builder.root["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [0.5, 1, 1, 1]}}]
    colors = builder.accessor(np.array([[255, 51, 0]] * 4, dtype="u1"), normalized=True)
    builder.mesh(attributes={"COLOR_0": colors}, material=0)
    expected = linear_to_srgb(np.array([0.5, 0.2, 0.0]))
    np.testing.assert_allclose(load(tmp_path, builder).colors[0, 0, :3], expected, atol=1e-6)


def test_a_surface_without_material_is_white(tmp_path):
    builder = GltfBuilder()
    builder.mesh()
    np.testing.assert_array_equal(load(tmp_path, builder).colors, 1)


def test_emission_is_added_in_linear_light(tmp_path):
    builder = GltfBuilder()
    builder.root["materials"] = [
        {
            "pbrMetallicRoughness": {"baseColorFactor": [0.25, 0, 0, 1]},
            "emissiveFactor": [0.25, 0.1, 0],
            "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 2.0}},
        }
    ]
    builder.mesh(material=0)
    expected = linear_to_srgb(np.array([0.75, 0.2, 0]))
    np.testing.assert_allclose(load(tmp_path, builder).colors[0, 0, :3], expected, atol=1e-6)


def test_an_emissive_texture_on_black(tmp_path):
    builder = GltfBuilder()
    builder.root["materials"] = [
        {
            "pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]},
            "emissiveFactor": [1, 1, 1],
            "emissiveTexture": {"index": builder.texture(LEFT_RED)},
        }
    ]
    builder.mesh(attributes={"TEXCOORD_0": SQUARE_UV}, material=0)
    assert_halves(load(tmp_path, builder), RED, BLUE)


def test_specular_glossiness(tmp_path):
    builder = GltfBuilder()
    glossy = {"diffuseFactor": [1, 1, 1, 1], "diffuseTexture": {"index": builder.texture(LEFT_RED)}}
    builder.root["materials"] = [{"extensions": {"KHR_materials_pbrSpecularGlossiness": glossy}}]
    builder.mesh(attributes={"TEXCOORD_0": SQUARE_UV}, material=0)
    assert_halves(load(tmp_path, builder), RED, BLUE)


def test_names_of_files_may_be_percent_encoded(tmp_path):
    builder = GltfBuilder().textured_square(LEFT_RED)
    (tmp_path / "my part #1.bin").write_bytes(builder.binary)
    (tmp_path / "wood grain.png").write_bytes(png(LEFT_RED))
    builder.root["images"] = [{"uri": "wood%20grain.png"}]
    name = percent_encoded("my part #1.bin")
    assert_halves(load(tmp_path, builder.gltf(name), "a.gltf"), RED, BLUE)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_byte_order_marks(tmp_path, mark):
    builder = GltfBuilder()
    builder.mesh()
    assert load(tmp_path, mark + builder.gltf(), "a.gltf").face_count == 2


@pytest.mark.parametrize(
    ("texture", "text"),
    [
        ({"extensions": {"KHR_texture_basisu": {"source": 0}}}, "KHR_texture_basisu"),
        ({"source": 1}, "'gone.png' is missing"),
        ({"source": 2}, "broken image"),
        ({}, "no image"),
        ({"source": 3}, "images[3] has neither data nor an address"),
        ({"source": "0"}, "images[0] it refers to images[0], which it lacks"),
        ({"sampler": 4}, "samplers[4]"),
    ],
)
def test_lost_textures_are_noted(tmp_path, texture, text):
    builder = GltfBuilder().textured_square(LEFT_RED)
    builder.root["images"] = []
    builder.image(b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(60), "image/ktx2")
    builder.root["images"].append({"uri": "gone.png"})
    builder.image(png(LEFT_RED)[:60])
    builder.root["images"].append({})
    builder.root["textures"] = [texture]
    mesh = load(tmp_path, builder)
    assert [text in loss.text for loss in mesh.losses] == [True]
    assert not mesh.has_true_colors
    assert mesh.face_count == 2


def test_a_texture_without_coordinates_is_noted(tmp_path):
    builder = GltfBuilder().textured_square(LEFT_RED, reference={"texCoord": 1})
    (loss,) = load(tmp_path, builder).losses
    assert loss.text == "one of its textures has no coordinates"
    assert loss.of_color


def test_a_fallback_image_is_no_loss(tmp_path):
    builder = GltfBuilder().textured_square(LEFT_RED)
    ktx = builder.image(b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(60), "image/ktx2")
    builder.root["textures"][0]["extensions"] = {"KHR_texture_basisu": {"source": ktx}}
    mesh = load(tmp_path, builder)
    assert mesh.losses == ()
    assert_halves(mesh, RED, BLUE)


def test_extensions_that_are_required_and_not_known_are_noted(tmp_path):
    builder = GltfBuilder()
    builder.mesh()
    builder.root["extensionsRequired"] = ["KHR_mesh_quantization", "CESIUM_RTC", "ACME_wobble"]
    mesh = load(tmp_path, builder)
    assert [loss.text for loss in mesh.losses] == ["it requires the extension ACME_wobble, which is not read"]


@pytest.mark.parametrize("mode", [4, 5])
def test_draco(tmp_path, mode):
    """Of a strip as well the library decodes triangles."""
    draco = pytest.importorskip("DracoPy")
    faces = SQUARE_INDICES.reshape(-1, 3).astype(np.uint32)
    packed = draco.encode(SQUARE, faces, tex_coord=SQUARE_UV.astype(np.float64), quantization_bits=16)
    numbers = {entry["attribute_type"]: entry["unique_id"] for entry in draco.decode(packed).attributes}
    builder = GltfBuilder().textured_square(LEFT_RED)
    primitive = builder.root["meshes"][0]["primitives"][0]
    primitive["mode"] = mode
    for index in [*primitive["attributes"].values(), primitive["indices"]]:
        del builder.root["accessors"][index]["bufferView"]
    names = {"POSITION": numbers[0], "TEXCOORD_0": numbers[3]}
    primitive["extensions"] = {
        "KHR_draco_mesh_compression": {"bufferView": builder.view(packed), "attributes": names}
    }
    mesh = load(tmp_path, builder)
    assert extent(mesh) == pytest.approx([1, 1, 0], abs=1e-3)
    assert mesh.face_count == 2
    assert_halves(mesh, RED, BLUE)


def test_a_missing_decoder_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "DracoPy", None)
    builder = GltfBuilder()
    builder.mesh(extensions={"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}})
    with pytest.raises(ValueError, match=r"KHR_draco_mesh_compression needs DracoPy.*diffsplat\[data\]"):
        load(tmp_path, builder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asset": {"version": "1.0"}}, "version 1.0, expected 2.0"),
        ({"scene": -1}, r"scenes\[-1\], which it lacks"),
        ({"meshes": []}, r"meshes\[0\], which it lacks"),
        ({"accessors": [{"componentType": 5126, "count": 1 << 40, "type": "VEC3"}] * 2}, "without a buffer"),
        ({"nodes": "x"}, "is broken"),
    ],
)
def test_refusals(tmp_path, change, message):
    builder = GltfBuilder()
    builder.mesh()
    builder.root |= change
    with pytest.raises(ValueError, match=message):
        load(tmp_path, builder.gltf(), "a.gltf")


def test_instances_cannot_multiply_without_end(tmp_path):
    builder = GltfBuilder()
    builder.mesh(indices=np.tile(SQUARE_INDICES, 2000))
    many = builder.accessor(np.zeros((3000, 3), dtype="f4"))
    builder.root["nodes"][0]["extensions"] = {
        "EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": many}}
    }
    with pytest.raises(ValueError, match="more than 10000000 triangles"):
        load(tmp_path, builder)


def test_json_is_padded_with_zeros_by_some_programs(tmp_path):
    builder = GltfBuilder()
    builder.mesh()
    data = builder.glb()
    size = int.from_bytes(data[12:16], "little")
    text = json.dumps(json.loads(data[20 : 20 + size])).encode()
    padded = text + b"\0" * (-len(text) % 4)
    head = data[:12] + len(padded).to_bytes(4, "little") + data[16:20]
    assert load(tmp_path, head + padded + data[20 + size :]).face_count == 2


@pytest.mark.parametrize("behind", [b"\0" * 7, b"\xff" * 64])
def test_bytes_behind_the_last_chunk_are_ignored(tmp_path, behind):
    assert_halves(load(tmp_path, GltfBuilder().textured_square(LEFT_RED).glb() + behind), RED, BLUE)


@pytest.mark.parametrize(
    "uri",
    [
        lambda data: "data:;base64," + base64.encodebytes(data).decode(),
        lambda data: "DATA:text/plain;charset=utf-8;BASE64," + base64.b64encode(data).decode(),
        lambda data: "data:a/b;base64," + base64.urlsafe_b64encode(data).decode().rstrip("="),
        lambda data: "data:a/b; base64," + base64.b64encode(data).decode(),
        lambda data: "a.bin?version=2",
    ],
)
def test_addresses_of_buffers(tmp_path, uri):
    builder = GltfBuilder().textured_square(LEFT_RED)
    (tmp_path / "a.bin").write_bytes(builder.binary)
    assert_halves(load(tmp_path, builder.gltf(uri(builder.binary)), "a.gltf"), RED, BLUE)


def test_null_stands_for_nothing(tmp_path):
    builder = GltfBuilder().textured_square(LEFT_RED)
    builder.root["nodes"][0] |= {"skin": None, "children": None, "extensions": None}
    builder.root["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = None
    assert_halves(load(tmp_path, builder), RED, BLUE)


@pytest.mark.parametrize("lacking", ["POSITION", "indices"])
def test_empty_primitives_are_no_obstacle(tmp_path, lacking):
    builder = GltfBuilder().textured_square(LEFT_RED)
    builder.root["meshes"].append({"name": "empty"})
    builder.root["nodes"].append({"mesh": 1})
    builder.root["scenes"][0]["nodes"].append(1)
    accessors = builder.root["accessors"]
    accessors.append({"componentType": 5123, "count": 0, "type": "SCALAR", "bufferView": 0})
    empty = {"attributes": {"POSITION": 0}, "indices": len(accessors) - 1}
    builder.root["meshes"][0]["primitives"].append(
        empty if lacking == "indices" else {"attributes": {"TEXCOORD_0": 1}}
    )
    assert_halves(load(tmp_path, builder), RED, BLUE)


def test_colours_of_vertices_are_fractions_though_nothing_says_so(tmp_path):
    builder = GltfBuilder()
    colors = np.tile(np.array([51, 102, 204, 255], dtype="u1"), (4, 1))
    builder.mesh(attributes={"COLOR_0": builder.accessor(colors)})
    np.testing.assert_allclose(
        load(tmp_path, builder).colors[0, 0, :3], linear_to_srgb(colors[0, :3] / 255), atol=1e-6
    )


def test_an_unlit_surface_gives_off_nothing(tmp_path):
    unlit = {"emissiveFactor": [0, 1, 0], "extensions": {"KHR_materials_unlit": {}}}
    assert_halves(load(tmp_path, GltfBuilder().textured_square(LEFT_RED, **unlit)), RED, BLUE)


def test_vertices_without_weights_hang_on_their_first_joint(tmp_path):
    builder = GltfBuilder()
    attributes = {"JOINTS_0": np.ones((4, 4), dtype="u1"), "WEIGHTS_0": np.zeros((4, 4), dtype="f4")}
    builder.mesh(attributes=attributes)
    builder.root["nodes"] = [{"mesh": 0, "skin": 0}, {"scale": [5, 5, 5]}, {"scale": [2, 1, 1]}]
    builder.root["skins"] = [{"joints": [1, 2]}]
    assert extent(load(tmp_path, builder)) == pytest.approx([2, 1, 0])


def test_a_document_in_utf_16(tmp_path):
    builder = GltfBuilder().textured_square(LEFT_RED)
    assert_halves(load(tmp_path, builder.gltf().decode().encode("utf-16"), "a.gltf"), RED, BLUE)


@pytest.mark.parametrize("reference", [{}, {"index": -1}, {"index": 7}, 5, [0]])
def test_a_reference_to_no_texture_costs_the_colour_only(tmp_path, reference):
    builder = GltfBuilder().textured_square(LEFT_RED)
    builder.root["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] = reference
    mesh = load(tmp_path, builder)
    assert (mesh.face_count, mesh.has_true_colors) == (2, False)


def test_a_material_that_is_not_there_costs_the_colour_only(tmp_path):
    builder = GltfBuilder()
    builder.mesh(material=3)
    mesh = load(tmp_path, builder)
    assert [loss.text for loss in mesh.losses] == [
        "a material is broken: it refers to materials[3], which it lacks"
    ]
    np.testing.assert_array_equal(mesh.colors, 1)


@pytest.mark.parametrize(("kind", "code"), [("<i4", 5124), ("<f8", 5130)])
def test_component_types_beyond_the_specification(tmp_path, kind, code):
    builder = GltfBuilder()
    view = builder.view((SQUARE * 4).astype(kind).tobytes())
    builder.root["accessors"] = [{"bufferView": view, "componentType": code, "count": 4, "type": "VEC3"}]
    builder.mesh(positions=0)
    assert extent(load(tmp_path, builder)) == pytest.approx([4, 4, 0])


@pytest.mark.parametrize("length", [0, 1e-3, 0.99, 2, 100])
def test_rotations_of_any_length_turn_and_do_not_scale(tmp_path, length):
    builder = GltfBuilder()
    builder.mesh(positions=SQUARE * np.array([3, 1, 1], dtype="f4"))
    builder.root["nodes"][0]["rotation"] = (np.array([0, 0, 1, 1]) * 0.5**0.5 * length).tolist()
    assert extent(load(tmp_path, builder)) == pytest.approx([1, 3, 0] if length else [3, 1, 0], abs=1e-6)


def test_meshes_without_nodes_and_scenes_appear_once(tmp_path):
    builder = GltfBuilder()
    builder.mesh()
    for name in ("nodes", "scenes", "scene"):
        del builder.root[name]
    assert load(tmp_path, builder).face_count == 2


def test_joints_without_weights_leave_the_mesh_as_it_is(tmp_path):
    builder = GltfBuilder()
    builder.mesh(attributes={"JOINTS_0": np.zeros((4, 4), dtype="u1")})
    builder.root["skins"] = [{"joints": [1]}]
    builder.root["nodes"] = [{"mesh": 0, "skin": 0}, {"scale": [5, 5, 5]}]
    assert extent(load(tmp_path, builder)) == pytest.approx([1, 1, 0])
