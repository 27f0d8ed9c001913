"""Base class of networks that are stored with the arguments of their constructor, in the layout of diffusers.

A folder holds ``config.json`` and ``diffusion_pytorch_model.safetensors``, or ``model.safetensors`` as in the release.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import diffsplat
from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import make_folder
from diffsplat.io.json_files import read_json, write_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
RELEASED_WEIGHTS_FILE = "model.safetensors"
"""Name of the weights of reconstructor, autoencoder and elevation network in the release of the paper's networks."""

Arguments = ParamSpec("Arguments")


def keep_arguments(
    constructor: Callable[Concatenate[Any, Arguments], None],
) -> Callable[Concatenate[Any, Arguments], None]:
    """Decorator of the constructor of a :class:`BaseNetwork`: keeps its arguments in ``config``."""
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def keeping(self: Any, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        constructor(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        self.config = {name: bound.arguments[name] for name in list(signature.parameters)[1:]}

    return keeping


class BaseNetwork(nn.Module):
    """A network whose constructor is decorated with :func:`keep_arguments`.

    Its arguments are values that JSON can hold.
    """

    config: dict[str, Any]
    """Arguments of the constructor, defaults included."""
    weights_file: ClassVar[str] = WEIGHTS_FILE
    """Name of the file that its weights are written to."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self._floating().device

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weights."""
        return self._floating().dtype

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """A network of a local folder, in evaluation mode and float32 on the CPU.

        Entries of the configuration that are not arguments are ignored.

        Raises:
            OSError: when a file of the folder is missing.
            ValueError: when the file lacks weights of the network or has others.
        """
        stored = read_json(Path(folder) / CONFIG_FILE)
        known = list(inspect.signature(cls.__init__).parameters)[1:]
        with UninitialisedLayers():
            network = cls(**{name: stored[name] for name in known if name in stored})
        state = network._read_weights(Path(folder))
        for name, tensor in state.items():
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
        network.load_state_dict(state, assign=True)
        return network.eval()

    def load_weights(self, folder: str | Path) -> None:
        """Take over the weights of a local folder, in place.

        Raises:
            OSError: when the file of weights is missing.
            ValueError: when the file lacks weights of the network, has others, or has one of another shape.
        """
        self.load_state_dict(self._read_weights(Path(folder)))

    def save_pretrained(
        self, folder: str | Path, *, half: bool = False, weights_file: str | None = None
    ) -> None:
        """Write configuration and weights, in half precision if asked, into a folder that is made if missing."""
        target = make_folder(folder)
        stored = {
            "_class_name": type(self).__name__,
            "_diffsplat_version": diffsplat.__version__,
            **self.config,
        }
        write_json(stored, target / CONFIG_FILE)
        save_file(
            stored_state(self.state_dict(), half=half),
            target / (weights_file or self.weights_file),
            metadata={"format": "pt"},
        )

    def _floating(self) -> Tensor:
        return next(tensor for tensor in self.state_dict().values() if tensor.is_floating_point())

    def _read_weights(self, folder: Path) -> dict[str, Tensor]:
        """The weights of a folder as they are stored, names and shapes checked."""
        released = folder / RELEASED_WEIGHTS_FILE
        state = load_file(released if released.is_file() else folder / WEIGHTS_FILE)
        own = self.state_dict()
        require_names(state, own, f"diffsplat {diffsplat.__version__}")
        require_shapes(state, own, f"this {type(self).__name__}", f" in {str(folder)!r}")
        return state


def require_names(state: Iterable[str], expected: Iterable[str], owner: str) -> None:
    """Refuse weights that have other names than the owner's.

    Raises:
        ValueError: naming one of them.
    """
    missing, unknown = {*expected} - {*state}, {*state} - {*expected}
    if missing or unknown:
        raise InvalidInputError(
            f"{len(missing)} weights are missing and {len(unknown)} unknown, such as {min(missing | unknown)}, "
            f"expected those of {owner}"
        )


def require_shapes(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], owner: str, place: str = ""
) -> None:
    """Refuse weights that are missing, or whose shape differs from the owner's.

    Raises:
        ValueError: naming the first of them.
    """
    for name, tensor in expected.items():
        shape = tuple(state[name].shape) if name in state else None
        if shape != tuple(tensor.shape):
            raise InvalidInputError(
                f"the weight {name}{place} has the shape {shape}, expected {tuple(tensor.shape)} as in {owner}"
            )


def stored_state(state: Mapping[str, Tensor], *, half: bool) -> dict[str, Tensor]:
    """Weights by name as they are written, floating-point ones in half precision if asked."""
    return {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in state.items()
    }


class UninitialisedLayers(TorchFunctionMode):
    """Context in which layers are made without random weights, for those that get stored ones.

    The ``meta`` device does that too, but drawing on it imports torch's compiler, which takes a second.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Leave out the functions of ``torch.nn.init``."""
        given = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return given.get("tensor", args[0] if args else None)
        return func(*args, **given)
