"""AdamW and Muon over the parameters of one network."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffsplat.errors import InvalidInputError, optional_package, require
from diffsplat.training.muon_optimizer import Muon
from diffsplat.training.trainer_config import OptimConfig


def split_parameters(network: nn.Module, config: OptimConfig) -> dict[str, dict[str, nn.Parameter]]:
    """Trainable parameters by treatment and name: ``muon``, ``decay``, ``plain`` (without weight decay).

    Raises:
        ValueError: for a factor of the learning rate of no parameter.
    """
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    for part, _ in config.lr_factors:
        expected = f"a part of the name of a trained parameter, such as {', '.join(names[:2])}"
        require(any(part in name for name in names), "optim.lr_factors", repr(part), expected)
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    groups: dict[str, dict[str, nn.Parameter]] = {"muon": {}, "decay": {}, "plain": {}}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        hidden = (
            parameter.ndim in (2, 4)  # matrices and kernels; token tables have three
            and id(parameter) not in embeddings
            and not any(part in name for part in config.muon_exclude)
        )
        if config.name == "muon" and hidden:
            groups["muon"][name] = parameter
        else:
            decays = config.decayed == "all" or parameter.ndim >= 2
            groups["decay" if decays else "plain"][name] = parameter
    return groups


class Optimizers:
    """AdamW, Muon or both, which share a learning rate; state goes in and out as named tensors."""

    def __init__(self, network: nn.Module, config: OptimConfig) -> None:
        groups = split_parameters(network, config)
        self._members: list[torch.optim.Optimizer] = []
        adamw = [
            *_groups(groups["decay"], config, config.weight_decay),
            *_groups(groups["plain"], config, 0.0),
        ]
        if adamw:
            self._members.append(_adamw(adamw, config))
        for group in _groups(groups["muon"], config, config.weight_decay):
            member = Muon(group["params"], config.lr, config.weight_decay, config.momentum)
            member.param_groups[0]["lr_factor"] = group["lr_factor"]
            self._members.append(member)
        if not self._members:
            raise InvalidInputError("the stage has no trainable parameters, expected at least one")
        parameters = [[p for group in m.param_groups for p in group["params"]] for m in self._members]
        self.parameters = list(itertools.chain(*parameters))
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        self._names = [[names[id(parameter)] for parameter in members] for members in parameters]

    def step(self, lr: float) -> None:
        """Update the parameters from their gradients."""
        for member in self._members:
            for group in member.param_groups:
                group["lr"] = lr * group["lr_factor"]
            member.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for member in self._members:
            member.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """All state as ``parameter name|entry``."""
        tensors: dict[str, Tensor] = {}
        for member, names in zip(self._members, self._names, strict=True):
            parameters = itertools.chain(*(group["params"] for group in member.param_groups))
            for name, parameter in zip(names, parameters, strict=True):
                for entry, value in member.state.get(parameter, {}).items():
                    # bitsandbytes counts steps in an int, and all its parameters share one table.
                    tensor = value.clone() if entry.startswith("qmap") else torch.as_tensor(value)
                    tensors[f"{name}|{entry}"] = tensor
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            ValueError: when a tensor belongs to no parameter of this optimiser.
        """
        by_name: dict[str, dict[str, Tensor | int]] = {}
        for key, value in tensors.items():
            name, _, entry = key.rpartition("|")
            counter = value.ndim == 0 and not value.is_floating_point()
            by_name.setdefault(name, {})[entry] = int(value) if counter else value
        unknown = set(by_name) - {name for names in self._names for name in names}
        if unknown:
            raise InvalidInputError(
                f"the checkpoint has optimiser state of {min(unknown)}, which the stage lacks"
            )
        for member, names in zip(self._members, self._names, strict=True):
            state = member.state_dict()
            state["state"] = {i: by_name[name] for i, name in enumerate(names) if name in by_name}
            member.load_state_dict(state)


def _adamw(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW in fp32, or with moments of eight bits (Dettmers et al. 2022).

    Raises:
        MissingPackageError: for the latter without bitsandbytes.
    """
    if config.name != "adamw8bit":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    with optional_package("optim.name adamw8bit", "bitsandbytes", "adamw8bit"):
        from bitsandbytes.optim import AdamW8bit
    return AdamW8bit(groups, lr=config.lr, betas=config.betas)


def _groups(
    parameters: Mapping[str, nn.Parameter], config: OptimConfig, weight_decay: float
) -> list[dict[str, Any]]:
    """One group of an optimiser for each factor of the learning rate."""
    by_factor: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        by_factor.setdefault(config.lr_factor(name), []).append(parameter)
    return [
        {"params": group, "weight_decay": weight_decay, "lr_factor": factor}
        for factor, group in by_factor.items()
    ]
