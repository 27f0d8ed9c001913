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
    """``diffusers.PixArtTransformer2DModel`` without the networks beside it.

    The package that it lies in imports all of them before any one, which took an eighth of the processor's time of a
    ``diffsplat generate``.
    """
    defer_package("diffusers.models.transformers")
    return import_module("diffusers.models.transformers.pixart_transformer_2d").PixArtTransformer2DModel


def defer_package(name: str) -> None:
    """Put off running a package's ``__init__`` until a name is asked for that no imported submodule has brought.

    Until then its modules can be imported one by one. For packages whose modules ask nothing of it while they are
    imported themselves: with several threads they could wait for each other. Nothing happens when the package was
    imported before.

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
    # Another thread may have been faster.
    _bind(sys.modules.setdefault(name, package))


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
        if name.startswith("__") and name != "__all__":
            # Tools ask all modules for such names, as unittest does for their warnings.
            raise self._absent(name)
        with self._lock:
            if not self._begun:
                self._run()
        names = vars(self._package)
        if name in names:
            return names[name]
        if names["__getattr__"] is not self:
            return names["__getattr__"](name)
        raise self._absent(name)

    def _absent(self, name: str) -> AttributeError:
        return AttributeError(f"module {self._package.__name__!r} has no attribute {name!r}")

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
