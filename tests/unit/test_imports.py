"""Every module can be imported with the core dependencies alone, and importing does nothing else."""

import subprocess
import sys

OPTIONAL = (
    "accelerate datasets embreex fastapi gsplat networkx pyarrow pydantic pytest scipy tensorboard trimesh"
)
OF_THE_SERVER = "api_routes api_schemas generation_app generation_service request_bodies"
"""Modules of diffsplat.web that 'diffsplat serve' imports after it has made sure of its extra."""

PROBE = f"""
import builtins, importlib, pkgutil

ordinary_import = builtins.__import__

def watched_import(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {{}}).get("__name__", "")
    if level == 0 and importer.startswith("diffsplat") and name.split(".")[0] in {OPTIONAL.split()!r}:
        print(importer, "imports", name)
    return ordinary_import(name, globals, locals, fromlist, level)

builtins.__import__ = watched_import
import diffsplat
for module in pkgutil.walk_packages(diffsplat.__path__, "diffsplat."):
    if module.name not in {["diffsplat.web." + name for name in OF_THE_SERVER.split()]!r}:
        importlib.import_module(module.name)
import torch
if torch.cuda.is_initialized():
    print("CUDA was initialised")
"""


def printed(script: str, *words: object) -> str:
    """What a script prints in an interpreter of its own, once it has ended well and without a word on stderr."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stderr == ""
    return result.stdout


def test_modules_need_no_optional_package_and_say_nothing():
    assert printed(PROBE) == ""


def test_the_version_needs_no_torch():
    """The command line answers --version and --help at once."""
    probe = "import sys, diffsplat; print(diffsplat.__version__); sys.exit('torch' in sys.modules)"
    assert printed(probe).strip().count(".") == 2


def test_the_pipeline_is_handed_out_by_the_package_on_first_use():
    probe = """
import sys, diffsplat
assert "torch" not in sys.modules
from diffsplat import DiffSplatPipeline
from diffsplat.pipelines import DiffSplatPipeline as same
print(DiffSplatPipeline is same, set(diffsplat.__all__) <= set(dir(diffsplat)), hasattr(diffsplat, "Pipeline"))
"""
    assert printed(probe).split() == ["True", "True", "False"]


HEAVY = "accelerate datasets diffusers pandas peft scipy.stats sklearn sympy torch._dynamo transformers"
COLD = f"""
import sys
from diffsplat.cli.main import main

code = main(["generate", "a red chair", "--steps", "1", "--preview", "png", "--output", sys.argv[1]])
print(code, *[name for name in {HEAVY.split()!r} if name in sys.modules])
"""


def test_the_embedded_model_generates_without_heavy_packages(tmp_path):
    """Their import took longer than the generation."""
    result = subprocess.run(
        [sys.executable, "-c", COLD, str(tmp_path / "chair.ply")], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "0"
    assert (tmp_path / "chair.png").is_file()


def test_training_commands_are_there_without_heavy_packages():
    """Networks of diffusers and transformers are imported by the stages that train them."""
    probe = f"import sys, diffsplat.cli.train; print(*[name for name in {HEAVY.split()!r} if name in sys.modules])"
    assert printed(probe).strip() == ""
