"""`codegan score`'s feature pass over real images against the bare feature network: what reading and resizing cost.

    uv run python -m benchmarks.score_speed DATA [--features inception] [--size 256] [--count 256] [--rounds 3]

DATA is anything `codegan` reads. The networks have their published shapes and random weights, on which speed does not
depend; the bare network is given batches that are ready.
"""

import argparse

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.machine import describe, interleaved
from data.images import open_images
from pipelines.scoring.extraction import extract
from pipelines.scoring.networks import FeatureNetwork, imagenet_units, load_features
from pipelines.scoring.sets import chosen_images
from stage1_autoencoder.training.processes import make_accelerator


def random_features(name: str, device: torch.device) -> FeatureNetwork:
    if name == "offline":
        return load_features("offline", None, device)
    if name == "squeezenet":
        layers: nn.Module = torchvision.models.squeezenet1_0(weights=None).features.eval().to(device)
        return FeatureNetwork("squeezenet", 512, 224, lambda x: layers(imagenet_units(x)).mean(dim=(2, 3)), device)
    inception = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=False)
    inception.fc = nn.Identity()
    inception.eval().to(device)

    def network(images: Tensor) -> Tensor:
        features: Tensor = inception((images - 128) / 128)
        return features

    return FeatureNetwork("inception", 2048, 299, network, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--features", nargs="+", default=["inception", "squeezenet"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    accelerator = make_accelerator()
    images = open_images(options.data, size=options.size)
    chosen = np.arange(min(options.count, len(images)))
    lazy = chosen_images(images, chosen, "real images")
    lines = []
    for name in options.features:
        network = random_features(name, accelerator.device)
        parts = np.array_split(chosen, -(-len(chosen) // options.batch))
        ready = [network.prepare(lazy.at(part.tolist())) for part in parts]

        def bare(network: FeatureNetwork = network, ready: list[Tensor] = ready) -> None:
            for batch in ready:
                network.extract(batch)

        def whole(network: FeatureNetwork = network) -> None:
            extract(lazy, [network], options.batch, accelerator)

        times = interleaved({"bare network": bare, "feature pass": whole}, options.rounds)
        for action, seconds in times.items():
            share = times["bare network"] / seconds
            lines.append(f"| {name} | {action} | {len(chosen) / seconds:.1f} | {share:.0%} |")
    print(f"{describe()}; {len(chosen)} images of {images.name} at {options.size} px, batch {options.batch}\n")
    print("| features | | images/s | share of the bare network |\n|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
