"""The stock transformer of the embedded model, imported without all the others of diffusers."""

import sys
from importlib import import_module
from importlib.abc import Loader
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
    package = module_from_spec(spec)
    vars(package)["__getattr__"] = _Init(package, spec.loader)
    sys.modules[name] = package
    _bind(package)


class _Init:
    """The ``__getattr__`` of a package whose ``__init__`` has not run: runs it, once it has succeeded not again.

    Other threads wait for it; its own, which asks for names while it runs, is told what there is by then.
    """

    def __init__(self, package: ModuleType, loader: Loader) -> None:
        self._package = package
        self._loader = loader
        self._lock = RLock()
        self._begun = False

    def __call__(self, name: str) -> Any:
        with self._lock:
            if not self._begun:
                self._run()
        names = vars(self._package)
        if name in names:
            return names[name]
        if names["__getattr__"] is not self:
            return names["__getattr__"](name)
        raise AttributeError(f"module {self._package.__name__!r} has no attribute {name!r}")

    def _run(self) -> None:
        self._begun = True
        try:
            self._loader.exec_module(self._package)
        except BaseException:
            self._begun = False
            raise


def _bind(module: ModuleType) -> None:
    """Make a module an attribute of its parent, as an import does."""
    parent, _, child = module.__name__.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
