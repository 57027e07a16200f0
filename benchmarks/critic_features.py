"""How much of a picture a trained critic sees: a decoder learns to reconstruct from its features (FastGAN, appendix B).

    uv run python -m benchmarks.critic_features --runs RUN [RUN ...] [--kimg 40] [--batch 8] [--vgg-weights FILE]

The critics are those of `sle` runs on the same store, and stay frozen. A decoder like those of their training reads
their 8 x 8 map. It learns from nine tenths of the store by the mean absolute error of codes, and is measured on the
rest. With VGG-16 the decoded pictures are also compared by LPIPS, as in the paper.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import describe
from data.files.checkpoints import load_weights
from data.latents import LatentStore
from pipelines.maps import load_critic
from pipelines.sample import load_generator
from stage2_codegen.frozen.perceptual import load_lpips
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.variants.sle import DECODER_WIDTHS, Critic, resized, widths_at
from stage2_codegen.variants.sle_networks import Decoder, initialise

WIDTH = 64  # of the decoder, as published
HELD_OUT = 10  # every tenth row


def features(critic: Critic, codes: Tensor) -> Tensor:
    """The critic's 8 x 8 map of codes (N, C, S, S)."""
    maps: dict[int, Tensor] = critic.pyramid(critic.stem(codes))
    return maps[8]


def codes_at(store: LatentStore, rows: list[int], pipe: ImageGenerator, device: torch.device) -> Tensor:
    return pipe.scale.to_codes(torch.from_numpy(store.read(rows)).to(device))


def trained_decoder(
    critic: Critic, pipe: ImageGenerator, store: LatentStore, rows: list[int], options: argparse.Namespace
) -> Decoder:
    torch.manual_seed(0)  # the same decoder and the same order for each critic
    device = next(critic.parameters()).device
    channels, size, _ = store.code_shape
    inputs = features(critic, codes_at(store, rows[:1], pipe, device)).shape[1]
    up = list(widths_at(DECODER_WIDTHS, min(128, size // 2), WIDTH, 2 * channels).values())
    decoder = Decoder(inputs, up, channels, unbounded=True)
    initialise(decoder)
    decoder = decoder.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(decoder.parameters(), 2e-4, (0.5, 0.999))
    for _ in range(round(1000 * options.kimg / options.batch)):
        chosen = [rows[int(i)] for i in torch.randint(len(rows), (options.batch,))]
        codes = codes_at(store, chosen, pipe, device)
        made = decoder(features(critic, codes))
        F.l1_loss(made, resized(codes, made)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return decoder.eval()


@torch.no_grad()
def distances(
    decoder: Decoder,
    critic: Critic,
    pipe: ImageGenerator,
    store: LatentStore,
    rows: list[int],
    lpips: torch.nn.Module | None,
) -> list[float]:
    """Mean absolute error of codes and, with LPIPS, its mean over the decoded pictures."""
    device, errors = next(critic.parameters()).device, []
    for row in rows:
        codes = codes_at(store, [row], pipe, device)
        made = decoder(features(critic, codes))
        target = resized(codes, made)
        both = [F.l1_loss(made, target).item()]
        if lpips is not None:
            images = [pipe.autoencoder.decode(pipe.scale.to_latents(each)) for each in (made, target)]
            both.append(lpips(*images).item())
        errors.append(both)
    return [sum(column) / len(rows) for column in zip(*errors, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--kimg", type=float, default=40.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--vgg-weights", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lpips = load_lpips(options.vgg_weights).network.to(device) if options.vgg_weights else None
    stores = {load_weights(run / "weights").state["store"] for run in options.runs}
    if len(stores) > 1:
        parser.error(f"--runs: were trained on different stores: {', '.join(sorted(stores))}")
    store = LatentStore.open(stores.pop())
    held_out = list(range(0, len(store), HELD_OUT))
    rows = sorted(set(range(len(store))) - set(held_out))
    print(f"{describe()}; {len(held_out)} held-out pictures, decoders of {options.kimg:g} thousand samples\n")
    print("| critic of | mean absolute error of codes | LPIPS |\n|---|---|---|", flush=True)
    for run in options.runs:
        pipe = load_generator(run)
        critic = load_critic(run, pipe)
        if not isinstance(critic, Critic):
            parser.error(f"--runs: {run} is not a run of sle")
        decoder = trained_decoder(critic, pipe, store, rows, options)
        error, *perceptual = distances(decoder, critic, pipe, store, held_out, lpips)
        print(f"| {run.name} | {error:.4f} | {f'{perceptual[0]:.4f}' if perceptual else '-'} |", flush=True)


if __name__ == "__main__":
    main()
