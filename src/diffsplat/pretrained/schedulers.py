"""Samplers by name: diffusers schedulers set up for a network's prediction."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from diffsplat.errors import InvalidInputError
from diffsplat.pretrained.catalogue import Prediction, Sampler
from diffsplat.pretrained.safetensors_files import read_json


def make_scheduler(sampler: Sampler, config: Mapping[str, Any], prediction: Prediction) -> Any:
    """A diffusers scheduler with trailing timesteps (Lin et al. 2024, section 3.3).

    The betas of the configuration are used as they are: no rescaling to zero terminal signal-to-noise ratio,
    because the released weights were not sampled with it.

    Args:
        sampler: ``dpm++`` and ``dpm++-sde`` are second-order multistep solvers (Lu et al. 2022), ``ddim`` the
            deterministic one of Song et al. (2021), ``euler`` a first-order step along the flow. For a flow,
            ``ddim`` and ``euler`` are the same.
        config: configuration of the scheduler that the weights were trained or published with.
        prediction: what the network predicts.
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
            from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

            options["algorithm_type"] = "sde-dpmsolver++" if sampler == "dpm++-sde" else "dpmsolver++"
            return DPMSolverMultistepScheduler.from_config(stored, **options)
        case "ddim":
            from diffusers.schedulers.scheduling_ddim import DDIMScheduler

            return DDIMScheduler.from_config(stored, **options, clip_sample=False)
        case "euler":
            from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

            return EulerDiscreteScheduler.from_config(stored, **options)


def load_scheduler(folder: Path) -> Any:
    """The scheduler of a model folder, of the class that its ``scheduler_config.json`` names.

    Raises:
        ValueError: for a class that this package does not sample flows with.
        FileNotFoundError: without the file.
    """
    config = read_json(folder / "scheduler_config.json")
    match config.get("_class_name"):
        case "FlowMatchEulerDiscreteScheduler":
            return FlowMatchEulerDiscreteScheduler.from_config(config)
        case "DPMSolverMultistepScheduler":
            from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

            return DPMSolverMultistepScheduler.from_config(config)
        case other:
            raise InvalidInputError(
                f"its class is {other!r}, expected FlowMatchEulerDiscreteScheduler or DPMSolverMultistepScheduler"
            )


def _flow_scheduler(sampler: Sampler, shift: float) -> Any:
    match sampler:
        case "euler" | "ddim":
            return FlowMatchEulerDiscreteScheduler(shift=shift)
        case "dpm++" | "dpm++-sde":
            from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

            return DPMSolverMultistepScheduler(
                prediction_type="flow_prediction",
                use_flow_sigmas=True,
                flow_shift=shift,
                algorithm_type="sde-dpmsolver++" if sampler == "dpm++-sde" else "dpmsolver++",
            )
