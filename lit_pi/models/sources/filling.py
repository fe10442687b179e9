"""Weights that arrive module by module, so that a layer can be sharded before the next one has any."""

from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

Fill = Callable[[nn.Module], None]
"""Gives a module its own weights, those of its submodules left out."""


def replace_parameters(model: nn.Module, make: Callable[[nn.Parameter], Tensor]) -> None:
    """Put another tensor in each parameter's place; tied ones stay tied, where `Module.to_empty` would part them."""
    made: dict[Tensor, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in made:
                made[parameter] = nn.Parameter(make(parameter), requires_grad=parameter.requires_grad)
            setattr(module, name, made[parameter])


class Filling:
    """Gives the modules of a model without data their weights, one module a call, in the order of `Module.apply`.

    Until then their parameters are stand-ins on the CPU, which hold one number each: adapters are made beside them.

    Args:
        model: the model, on the meta device.
        give: sets the values of a module's own weights; they come with their names in the model.
        device: where the weights are made.
    """

    def __init__(
        self, model: nn.Module, give: Callable[[nn.Module, Mapping[str, Tensor]], object], device: torch.device
    ) -> None:
        replace_parameters(model, lambda weight: torch.empty(1, dtype=weight.dtype).expand(weight.shape))
        self._give = give
        self._device = device
        self._names = {stand_in: name for name, stand_in in model.named_parameters()}
        # Of tied weights, which are met more than once; sharded ones must not be kept alive from here.
        self._filled: WeakValueDictionary[Tensor, nn.Parameter] = WeakValueDictionary()

    def __call__(self, module: nn.Module) -> None:
        """Give a module its own weights."""
        fresh = {}
        for name, stand_in in list(module.named_parameters(recurse=False)):
            if stand_in not in self._names:
                continue
            weight = self._filled.get(stand_in)
            if weight is None:
                empty = torch.empty(stand_in.shape, dtype=stand_in.dtype, device=self._device)
                weight = self._filled[stand_in] = nn.Parameter(empty, requires_grad=stand_in.requires_grad)
                fresh[self._names[stand_in]] = weight.detach()
            setattr(module, name, weight)
        if fresh:
            self._give(module, fresh)
