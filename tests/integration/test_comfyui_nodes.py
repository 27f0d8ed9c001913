"""The nodes for ComfyUI, against a stub of its interface."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from diffsplat.io.splat_formats import read_splats
from diffsplat.pipelines import DiffSplatPipeline

PACK = Path(__file__).parents[2] / "integrations" / "comfyui" / "__init__.py"
TYPES = {"STRING", "INT", "FLOAT", "BOOLEAN", "IMAGE", "DIFFSPLAT", "SPLATS"}


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nodes by name, loaded as ComfyUI loads them; outputs go to ``tmp_path``."""

    def get_save_image_path(prefix: str, folder: str):
        target = Path(folder) / Path(prefix).parent
        target.mkdir(parents=True, exist_ok=True)
        return str(target), Path(prefix).name, 1, str(Path(prefix).parent), prefix

    stub = ModuleType("folder_paths")
    stub.get_output_directory = lambda: str(tmp_path)  # pyright: ignore[reportAttributeAccessIssue]
    stub.get_save_image_path = get_save_image_path  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "folder_paths", stub)
    spec = importlib.util.spec_from_file_location("pack", PACK, submodule_search_locations=[str(PACK.parent)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pack", module)
    spec.loader.exec_module(module)
    yield module.NODE_CLASS_MAPPINGS
    sys.modules.pop("pack.diffsplat_nodes", None)


def run(node: type, **inputs):
    """What ComfyUI does with a node: defaults, then the function that it names."""
    asked = node.INPUT_TYPES()["required"]
    defaults = {
        name: spec[1]["default"] if len(spec) > 1 else spec[0][0]
        for name, spec in asked.items()
        if name not in inputs
    }
    return getattr(node(), node.FUNCTION)(**(defaults | inputs))


def test_nodes_declare_what_comfyui_asks_for(nodes):
    for node in nodes.values():
        assert callable(getattr(node, node.FUNCTION))
        declared = node.INPUT_TYPES()
        for kind, *_ in (*declared["required"].values(), *declared.get("optional", {}).values()):
            assert kind in TYPES or isinstance(kind, tuple)
        assert set(node.RETURN_TYPES) <= TYPES


def test_a_prompt_becomes_files_and_images(nodes, small_model, tmp_path):
    (pipe,) = run(nodes["DiffSplatLoadModel"], model=str(small_model))
    (made,) = run(nodes["DiffSplatGenerate"], pipe=pipe, prompt="a red chair", seed=3, steps=2, count=2)
    stored = DiffSplatPipeline.from_pretrained(small_model)
    truth = stored("a red chair", seed=3, steps=2, count=2)
    for number, item in enumerate(made):
        torch.testing.assert_close(item.splats.means, truth.splats[number].visible().means)
    asked = {"prompt": "a red chair", "seed": 3, "steps": 2, "guidance": 0.0}
    ((unguided,),) = run(nodes["DiffSplatGenerate"], pipe=pipe, **asked)
    torch.testing.assert_close(unguided.splats.means, stored(**asked).splats[0].visible().means)
    assert not torch.equal(unguided.splats.means, made[0].splats.means)
    saved = run(nodes["DiffSplatSave"], splats=made)
    paths = [Path(text) for text in saved["ui"]["text"]]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "splats/object_00001_.ply",
        "splats/object_00002_.ply",
    ]
    assert [read_splats(path).count for path in paths] == [item.splats.count for item in made]
    (images,) = run(nodes["DiffSplatPreview"], splats=made, frames=3, size=32)
    assert images.shape == (6, 32, 32, 3)
    assert 0 <= float(images.min()) < 0.8 < float(images.max()) <= 1


def test_defaults_are_those_of_the_model(nodes, small_model):
    (pipe,) = run(nodes["DiffSplatLoadModel"], model=str(small_model))
    ((made,),) = run(nodes["DiffSplatGenerate"], pipe=pipe, prompt="a red chair")
    truth = DiffSplatPipeline.from_pretrained(small_model)("a red chair", seed=0)
    torch.testing.assert_close(made.splats.means, truth.splats[0].visible().means)


def test_an_image_is_refused_by_a_model_of_text(nodes, small_model):
    (pipe,) = run(nodes["DiffSplatLoadModel"], model=str(small_model))
    with pytest.raises(ValueError, match="image"):
        run(nodes["DiffSplatGenerate"], pipe=pipe, image=torch.rand(1, 16, 16, 3))
