"""Every module can be imported with the core dependencies alone, and importing does nothing else."""

import subprocess
import sys

import pytest

from diffsplat.models.stock import defer_package

OPTIONAL = (
    "accelerate datasets embreex fastapi gsplat networkx pyarrow pydantic pytest scipy starlette tensorboard "
    "trimesh uvicorn"
)
OF_THE_SERVER = "api bodies pages schemas service serving"
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


def test_modules_need_no_optional_package_and_say_nothing():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout == ""
    assert result.stderr == ""


def test_the_version_needs_no_torch():
    """The command line answers --version and --help at once."""
    probe = "import sys, diffsplat; print(diffsplat.__version__); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert result.stdout.strip().count(".") == 2


ALONE = """
import sys
from diffsplat.models.stock import pixart_transformer

alone = pixart_transformer()
others = [name for name in sys.modules if name.startswith("diffusers.models.transformers.")]
assert others == ["diffusers.models.transformers.pixart_transformer_2d"], others
from diffusers import PixArtTransformer2DModel, SD3Transformer2DModel
assert alone is PixArtTransformer2DModel is pixart_transformer()
import diffusers.models.transformers as package
assert package.PixArtTransformer2DModel is alone
assert package.pixart_transformer_2d.PixArtTransformer2DModel is alone
"""


def test_the_small_transformer_comes_without_the_others_and_they_still_come_later():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]


PACKAGE = """
import sys
from diffsplat.models.stock import defer_package

sys.path.insert(0, sys.argv[1])
defer_package("whole.part")
import whole.part.light
assert whole.part.light.VALUE == 1 and "whole.part.heavy" not in sys.modules
assert not hasattr(whole.part, "absent")
assert whole.part.SUM == 3 and "whole.part.heavy" in sys.modules
defer_package("whole.part")
assert whole.part.SUM == 3
from whole.part import *
assert SUM == 3
"""


def test_a_deferred_package_runs_its_init_once_when_it_is_needed(tmp_path):
    part = tmp_path / "whole" / "part"
    part.mkdir(parents=True)
    (part.parent / "__init__.py").write_text("")
    (part / "light.py").write_text("VALUE = 1")
    (part / "heavy.py").write_text("VALUE = 2")
    (part / "__init__.py").write_text(
        "print('init')\nfrom .heavy import VALUE as heavy\nfrom .light import VALUE\nSUM = heavy + VALUE"
    )
    result = subprocess.run(
        [sys.executable, "-c", PACKAGE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout == "init\n"


def test_a_package_that_is_not_there_is_said_so():
    with pytest.raises(ModuleNotFoundError, match="colorsys_absent"):
        defer_package("colorsys_absent")
    assert "colorsys_absent" not in sys.modules
