"""The stock transformer of the embedded model, imported without all the others of diffusers."""

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel


def pixart_transformer() -> "type[PixArtTransformer2DModel]":
    """``diffusers.PixArtTransformer2DModel``, in a quarter of the time that importing it by that name takes.

    The package that it lies in imports all of its networks before any of them: three seconds of a processor's time,
    spent by every ``diffsplat generate``.
    """
    defer_package("diffusers.models.transformers")
    return import_module("diffusers.models.transformers.pixart_transformer_2d").PixArtTransformer2DModel


def defer_package(name: str) -> None:
    """Put off running a package's ``__init__`` until something is asked for that only it knows.

    Until then its modules can be imported one by one. For packages that their modules can do without; nothing
    happens when the package was imported before.

    Raises:
        ModuleNotFoundError: when there is no such package.
    """
    if name in sys.modules:
        return
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package, loader, lock = module_from_spec(spec), spec.loader, RLock()

    def from_init(attribute: str) -> Any:
        with lock:
            if vars(package).pop("__getattr__", None) is not None:
                loader.exec_module(package)
        return getattr(package, attribute)

    vars(package)["__getattr__"] = from_init
    sys.modules[name] = package
    _bind(package)


def _bind(module: ModuleType) -> None:
    """Make a module an attribute of its parent, as an import does."""
    parent, _, child = module.__name__.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
