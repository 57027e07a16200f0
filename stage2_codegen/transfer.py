"""Starting from the weights of another run, and the layers of a critic that are then not trained."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from data.errors import MismatchError, UsageError
from data.files.checkpoints import load_newest, load_weights
from stage2_codegen.description import check_generator

LEAST_SHARE = 0.5  # of a generator's weights; a run that provides fewer has too little in common to start from
MOST_NAMED = 6  # weights that a message names


class Initial(NamedTuple):
    """Weights to start from, by network, and the run that they come from."""

    run: Path
    tensors: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def of(cls, run: Path, variant: str) -> "Initial":
        """Load the newest checkpoint of a run or, where none is left, its averaged generator alone.

        Raises `InputError` without weights, `CorruptError` on damage, `MismatchError` for a run of another kind or
        variant.
        """
        weights = load_weights(run / "weights")
        found = weights.state.get("variant")
        if found != variant:
            what = f"{run}: is a run of {found}" if found else f"{run}: is not the run of a generator"
            raise MismatchError(what, f"give a run of {variant} to --init")
        check_generator(weights, run)
        checkpoint = load_newest(run / "checkpoints")
        average = weights.tensors["generator"]
        return cls(run, checkpoint.tensors if checkpoint else {"G": average, "G_ema": average})

    def put(self, networks: Mapping[str, nn.Module]) -> list[str]:
        """Copy every tensor that fits a network by name and shape; return the names of those that nothing fits.

        Raises `MismatchError` where less than half of the generator's weights fit.
        """
        new: list[str] = []
        for name, network in networks.items():
            own, given = network.state_dict(), self.tensors.get(name, {})
            fitting = {key: given[key] for key in own if key in given and given[key].shape == own[key].shape}
            missing = [key for key in own if key not in fitting]
            if name == "G" and _size(fitting) < LEAST_SHARE * _size(own):
                raise MismatchError(
                    f"{self.run}: most of its generator does not fit ({listed(missing)})",
                    "give the same --model flags, and codes of the same channels and of a similar side",
                )
            network.load_state_dict(fitting, strict=False)
            new += [f"{name}.{key}" for key in missing]
        return new


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def listed(names: list[str]) -> str:
    """Join the first of these names for a message."""
    return ", ".join(names[:MOST_NAMED]) + ", ..." * (len(names) > MOST_NAMED)


def trained_parameters(critic: nn.Module, frozen_layers: int) -> list[nn.Parameter]:
    """Return the parameters after the first `frozen_layers` convolutions and linear layers, and freeze those before.

    See Mo, Cho and Shin, "Freeze the Discriminator: a Simple Baseline for Fine-Tuning GANs", 2020: the lower layers'
    knowledge of pictures holds for other data, and few pictures can only spoil it. Raises `UsageError` where no layer
    would be left to train.
    """
    parameters, layers = list(critic.parameters()), list(_weight_layers(critic))
    if frozen_layers >= len(layers):
        raise UsageError(
            f"--freeze-critic {frozen_layers}: this critic has {len(layers)} layers", f"give {len(layers) - 1} or less"
        )
    if not frozen_layers:
        return parameters
    first = next(layers[frozen_layers].parameters())
    border = next(index for index, parameter in enumerate(parameters) if parameter is first)
    set_training(parameters[:border], False)
    return parameters[border:]


def _weight_layers(network: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear))


def set_training(parameters: list[nn.Parameter], trains: bool) -> None:
    """Let gradients flow to these parameters, or not."""
    for parameter in parameters:
        parameter.requires_grad_(trains)
