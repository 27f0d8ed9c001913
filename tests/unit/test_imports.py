"""Every module can be imported with the core dependencies alone, and importing does nothing else."""

import subprocess
import sys

import pytest

from diffsplat.models.deferred_import import defer_package

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


ALONE = """
import sys
import diffsplat.pipelines.splat_pipeline
from diffsplat.models.deferred_import import pixart_transformer

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
    assert printed(ALONE) == ""


PACKAGE = """
import sys
from diffsplat.models.deferred_import import defer_package

sys.path.insert(0, sys.argv[1])
defer_package("whole.part")
import whole.part.light
assert not hasattr(whole.part, "__warningregistry__")
assert whole.part.light.VALUE == 1 and "whole.part.heavy" not in sys.modules
assert not hasattr(whole.part, "absent")
assert whole.part.SUM == 3 and "whole.part.heavy" in sys.modules
defer_package("whole.part")
assert whole.part.SUM == 3
defer_package("starred")
from starred import *
assert STAR == 4
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
    (tmp_path / "starred").mkdir()
    (tmp_path / "starred" / "__init__.py").write_text("STAR = 4")
    assert printed(PACKAGE, tmp_path) == "init\n"


SHARED = """
import sys
from concurrent.futures import ThreadPoolExecutor
from diffsplat.models.deferred_import import defer_package

sys.path.insert(0, sys.argv[1])
defer_package("slow")
import slow
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(lambda _: slow.VALUE, range(4))) == [5] * 4
"""


def test_threads_wait_for_the_init_of_a_deferred_package(tmp_path):
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "__init__.py").write_text("import time\nprint('init')\ntime.sleep(0.3)\nVALUE = 5")
    assert printed(SHARED, tmp_path) == "init\n"


FAILING = """
import os, sys
from diffsplat.models.deferred_import import defer_package

sys.path.insert(0, sys.argv[1])
defer_package("failing")
import failing
for _ in range(2):
    try:
        failing.VALUE
    except OSError as error:
        assert "no such driver" in str(error)
    else:
        raise AssertionError
os.environ["DRIVER"] = "here"
assert failing.VALUE == 7
"""


def test_an_init_that_fails_says_why_each_time_it_is_needed(tmp_path):
    (tmp_path / "failing").mkdir()
    (tmp_path / "failing" / "__init__.py").write_text(
        "import os\nif 'DRIVER' not in os.environ:\n    raise OSError('no such driver')\nVALUE = 7"
    )
    assert printed(FAILING, tmp_path) == ""


def test_a_package_that_is_not_there_is_said_so():
    with pytest.raises(ModuleNotFoundError, match="colorsys_absent"):
        defer_package("colorsys_absent")
    assert "colorsys_absent" not in sys.modules
