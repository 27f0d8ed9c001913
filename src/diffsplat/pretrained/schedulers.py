"""Samplers by name: schedulers set up for a network's prediction."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from diffsplat.errors import InvalidInputError, require
from diffsplat.io.file_access import make_folder
from diffsplat.io.json_files import read_json, write_json
from diffsplat.models.rays_and_noise_levels import TIMESTEPS
from diffsplat.pretrained.release_catalogue import Prediction, Sampler

CONFIG_FILE = "scheduler_config.json"

_FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
_DPM, _DDIM, _EULER = "DPMSolverMultistepScheduler", "DDIMScheduler", "EulerDiscreteScheduler"
_UNIPC, _LCM, _TCD = "UniPCMultistepScheduler", "LCMScheduler", "TCDScheduler"
_FLOW_LCM = "FlowMatchLCMScheduler"
_MODULES = {
    _DPM: "scheduling_dpmsolver_multistep",
    _DDIM: "scheduling_ddim",
    _EULER: "scheduling_euler_discrete",
    _UNIPC: "scheduling_unipc_multistep",
    _LCM: "scheduling_lcm",
    _TCD: "scheduling_tcd",
    _FLOW_LCM: "scheduling_flow_match_lcm",
}
"""Modules of diffusers by the class of their scheduler; they are imported when it is used."""
_DPM_ALGORITHMS = {"dpm++": "dpmsolver++", "dpm++-sde": "sde-dpmsolver++"}


class FlowEulerScheduler:
    """Euler steps along a flow from noise to data (Lipman et al. 2023).

    The same steps as diffusers' ``FlowMatchEulerDiscreteScheduler``, whose import takes longer than a generation.

    Args:
        shift: of the noise levels towards noise, 1 for none (Esser et al. 2024, section 5.3.2).
    """

    def __init__(self, shift: float = 1.0) -> None:
        self.config = {"_class_name": _FLOW_EULER, "num_train_timesteps": TIMESTEPS, "shift": shift}
        self.timesteps = torch.empty(0)
        self._levels = torch.empty(0)
        self._next = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A scheduler of a configuration that diffusers wrote.

        Raises:
            ValueError: for an option that it does not have.
        """
        unknown = [
            name for name, value in config.items() if value is True or (name == "shift_terminal" and value)
        ]
        if unknown or config.get("num_train_timesteps", TIMESTEPS) != TIMESTEPS:
            option = (unknown or ["num_train_timesteps"])[0]
            raise InvalidInputError(
                f"its {option} is {config[option]!r}, expected a plain flow of 1000 timesteps"
            )
        return cls(float(config.get("shift", 1.0)))

    def set_timesteps(
        self,
        steps: int | None = None,
        device: torch.device | str | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Place the noise levels.

        The smallest of even ones is shifted twice, as in diffusers: as the end of their spacing and with all.

        Args:
            steps: how many even ones.
            device: of the levels.
            timesteps: instead of even ones, as the network gets them.
            sigmas: likewise, 1 to 0; they are shifted, as in diffusers.
        """
        if timesteps is not None:
            levels = torch.tensor(timesteps, dtype=torch.float64) / TIMESTEPS
        elif sigmas is not None:
            levels = self._shifted(torch.tensor(sigmas, dtype=torch.float64))
        else:
            levels = self._shifted(
                torch.linspace(1, self._shifted(1 / TIMESTEPS), steps or 0, dtype=torch.float64)
            )
        levels = levels.to(device, torch.float32)
        self.timesteps = levels * TIMESTEPS
        self._levels = torch.cat([levels, levels.new_zeros(1)])
        self._next = 0

    def step(self, prediction: Tensor, _timestep: Tensor, latents: Tensor, **_options: Any) -> tuple[Tensor]:
        """Latents one noise level lower, of a prediction of noise minus clean latents.

        To be called once for each of :attr:`timesteps`, in their order.
        """
        change = self._levels[self._next + 1] - self._levels[self._next]
        self._next += 1
        return ((latents.float() + change * prediction).to(prediction.dtype),)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the configuration, which diffusers reads too."""
        write_json(self.config, make_folder(folder) / CONFIG_FILE)

    def _shifted(self, level: Any) -> Any:
        shift = self.config["shift"]
        return shift * level / (1 + (shift - 1) * level)


def make_scheduler(sampler: Sampler, config: Mapping[str, Any], prediction: Prediction) -> Any:
    """A scheduler with trailing timesteps (Lin et al. 2024, section 3.3).

    The betas of the configuration are used as they are: no rescaling to zero terminal signal-to-noise ratio,
    because the released weights were not sampled with it.

    Args:
        sampler: ``dpm++`` and ``dpm++-sde`` are second-order multistep solvers (Lu et al. 2022), ``ddim`` the
            one of Song et al. (2021), deterministic unless its steps are given an ``eta``, ``euler`` a first-order
            step along the flow, ``unipc`` the predictor-corrector of Zhao et al. (2023). ``lcm`` (Luo et al. 2023)
            and ``tcd`` (Zheng et al. 2024) are for networks that were distilled to few steps. For a flow, ``ddim``
            and ``euler`` are the same.
        config: configuration of the scheduler that the weights were trained or published with.
        prediction: what the network predicts.

    Raises:
        ValueError: for ``tcd`` and a flow.
    """
    if prediction in ("flow", "latents"):
        return _flow_scheduler(sampler, float(config.get("shift", config.get("flow_shift", 1.0))))
    options: dict[str, Any] = {
        "prediction_type": prediction,
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": False,
    }
    stored = {name: value for name, value in config.items() if not name.startswith("_")}
    match sampler:
        case "dpm++" | "dpm++-sde":
            options["algorithm_type"] = _DPM_ALGORITHMS[sampler]
            return _of_diffusers(_DPM).from_config(stored, **options)
        case "ddim":
            return _of_diffusers(_DDIM).from_config(stored, **options, clip_sample=False)
        case "euler":
            return _of_diffusers(_EULER).from_config(stored, **options)
        case "unipc":
            stored.pop("solver_type", None)  # of another solver
            return _of_diffusers(_UNIPC).from_config(stored, **options)
        case "lcm" | "tcd":
            return _of_diffusers(_LCM if sampler == "lcm" else _TCD).from_config(stored, **options)


def load_scheduler(folder: Path, prediction: Prediction | None = None) -> Any:
    """The scheduler of a model folder, of the class that its ``scheduler_config.json`` names.

    Args:
        folder: of the scheduler.
        prediction: what the network predicts, noise or v, where the file does not say it.

    Raises:
        ValueError: for another class than those of :func:`make_scheduler`.
        FileNotFoundError: without the file.
    """
    config = read_json(folder / CONFIG_FILE)
    name = config.get("_class_name")
    require_known_scheduler(name)
    if name == _FLOW_EULER:
        return FlowEulerScheduler.from_config(config)
    noised = prediction in ("epsilon", "v_prediction")
    options = {"prediction_type": prediction} if noised else {}
    return _of_diffusers(str(name)).from_config(config, **options)


def require_known_scheduler(name: object) -> None:
    """Make sure that schedulers of a class are read back.

    Raises:
        ValueError: when they are not.
    """
    known = (_FLOW_EULER, *_MODULES)
    require(name in known, "its class", repr(name), f"one of: {', '.join(known)}")


def _of_diffusers(name: str) -> Any:
    return getattr(import_module(f"diffusers.schedulers.{_MODULES[name]}"), name)


def predicts(scheduler: Any, prediction: Prediction) -> bool:
    """Whether a scheduler expects what a network predicts."""
    flow = prediction in ("flow", "latents")
    kind = getattr(scheduler.config, "prediction_type", None)
    if kind is None and isinstance(scheduler.config, Mapping):
        kind = scheduler.config.get("prediction_type")
    if kind is None:
        return flow or not type(scheduler).__name__.startswith("Flow")
    return kind == ("flow_prediction" if flow else prediction)


def _flow_scheduler(sampler: Sampler, shift: float) -> Any:
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    match sampler:
        case "euler" | "ddim":
            return FlowEulerScheduler(shift)
        case "lcm":
            return _of_diffusers(_FLOW_LCM)(shift=shift)
        case "tcd":
            raise InvalidInputError("the sampler is 'tcd' and the model predicts a flow, expected another")
        case "unipc":
            return _of_diffusers(_UNIPC)(**flow)
        case "dpm++" | "dpm++-sde":
            return _of_diffusers(_DPM)(**flow, algorithm_type=_DPM_ALGORITHMS[sampler])
