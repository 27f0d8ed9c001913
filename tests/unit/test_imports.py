"""Every module can be imported with the core dependencies alone, and importing does nothing else."""

import subprocess
import sys

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
