"""What each option of the training step is worth: seconds and a ratio to the plain step, from one interleaved run.

    uv run python -m benchmarks.levers [--variant accel] [--batch 8] [--size 64] [--rounds 2] [--compile]

A measured step has one critic and one generator update. The lazy rows are means over as many steps as pass between
two penalties. The layout of the maps and the fused Adam are no options of `codegan train`: two rows show why.
"""

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from benchmarks.machine import describe, interleaved
from benchmarks.step import Step
from stage2_codegen.step import AdversarialStep

EVERY = 4


class Lever(NamedTuple):
    bf16: bool = False
    model: Mapping[str, Any] = MappingProxyType({})
    engine: Mapping[str, Any] = MappingProxyType({})
    steps: int = 1
    layout: torch.memory_format = torch.channels_last
    fused: bool = True


FD, LAZY = {"penalty": "finite-difference"}, {"penalty_every": EVERY}
LEVERS = {
    "fp32, exact penalty": Lever(),
    "fp32, finite-difference penalty": Lever(model=FD),
    f"fp32, exact penalty every {EVERY} updates": Lever(model=LAZY, steps=EVERY),
    "bf16, exact penalty": Lever(True),
    "bf16, finite-difference penalty": Lever(True, FD),
    f"bf16, exact penalty every {EVERY} updates": Lever(True, LAZY, steps=EVERY),
    f"bf16, finite-difference penalty every {EVERY} updates": Lever(True, {**FD, **LAZY}, steps=EVERY),
    "bf16, exact penalty, batch in 2 parts": Lever(True, engine={"accumulate": 2}),
    "bf16, exact penalty, maps not channels-last": Lever(True, layout=torch.contiguous_format),
    "bf16, exact penalty, Adam not fused": Lever(True, fused=False),
}
COMPILED = {
    "bf16, exact penalty, compiled": Lever(True, engine={"compiled": True}),
    "bf16, finite-difference penalty, compiled": Lever(True, FD, {"compiled": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="accel")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="also the compiled steps, which take minutes to begin")
    options = parser.parse_args()
    shape = (16, options.size, options.size)

    def action(lever: Lever) -> Callable[[], None]:
        with patch.object(torch, "channels_last", lever.layout):
            step = Step(options.variant, shape, options.batch, lever.bf16, lever.engine, **lever.model)
        if not lever.fused:
            _unfuse(step.inner)

        def run() -> None:
            with patch.object(torch, "channels_last", lever.layout):
                for _ in range(lever.steps):
                    step()

        return run

    levers = LEVERS | (COMPILED if options.compile else {})
    times = interleaved({name: action(lever) for name, lever in levers.items()}, options.rounds)
    seconds = {name: times[name] / lever.steps for name, lever in levers.items()}
    plain = next(iter(seconds.values()))
    print(f"{describe()}; {options.variant}, codes {' x '.join(map(str, shape))}, batch {options.batch}, ", end="")
    print(f"median of {options.rounds} rounds\n\n| | s a step | of the plain step |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.2f} | {value / plain:.2f} |", flush=True)


def _unfuse(step: AdversarialStep) -> None:
    """The optimisers anew, with the implementation that torch chooses itself."""
    for name, optimizer in step.optimizers.items():
        (group,) = optimizer.param_groups
        step.optimizers[name] = torch.optim.Adam(group["params"], group["lr"], group["betas"])


if __name__ == "__main__":
    main()
