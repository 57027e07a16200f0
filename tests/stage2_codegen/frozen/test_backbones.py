"""Backbones are the published networks with their batch normalisation folded in, and their weights are who they say."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from data.errors import CorruptError, InputError, MismatchError, UsageError
from stage2_codegen.frozen import backbones
from stage2_codegen.frozen.backbones import PUBLISHED, open_backbone

SIDES = {"lite0": "tf_efficientnet_lite0", "lite1": "tf_efficientnet_lite1"}
# timm's names of the layers of a block that widens its input, and of the first, which does not
WIDENING = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}
NORMS = {"_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3"}
PLAIN = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}


def published(name: str) -> dict[str, Tensor]:
    path = backbones._packaged(name)  # type: ignore[arg-type]
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights


def from_timm(name: str) -> nn.Module:
    """timm's network with the published weights, giving its maps."""
    network: nn.Module = timm.create_model(SIDES[name], pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
    weights, blocks = published(name), [block for stage in network.blocks for block in stage]  # type: ignore[union-attr]
    renamed = {
        f"blocks.{stage}.{index}": block
        for stage, blocks_of_stage in enumerate(network.blocks)  # type: ignore[arg-type]
        for index, block in enumerate(blocks_of_stage)
    }
    mapped = {f"conv_stem.{k}": weights[f"_conv_stem.{k}"] for k in ("weight",)}
    tensors = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    mapped |= {f"bn1.{k}": weights[f"_bn0.{k}"] for k in tensors}
    for number, prefix in enumerate(renamed):
        widens = f"_blocks.{number}._expand_conv.weight" in weights
        for theirs, ours in ({**WIDENING, **NORMS} if widens else PLAIN).items():
            for key in ("weight",) if "conv" in theirs else tensors:
                mapped[f"{prefix}.{ours}.{key}"] = weights[f"_blocks.{number}.{theirs}.{key}"]
    assert len(blocks) == len(renamed)
    network.load_state_dict(mapped)
    return network.eval()


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("side", [32, 96])
def test_maps_are_those_of_timm(name: str, side: int) -> None:
    torch.manual_seed(0)
    images_u8 = torch.randint(0, 256, (2, 3, side, side))
    ours = open_backbone(name).network(images_u8 / 127.5 - 1)  # type: ignore[arg-type]
    with torch.no_grad():
        theirs = from_timm(name)((images_u8 - 127) / 128)
    assert [x.shape[-1] for x in ours] == [side // 4, side // 8, side // 16, side // 32]
    for maps, expected, width in zip(ours, theirs, open_backbone(name).network.widths, strict=True):  # type: ignore[arg-type]
        assert maps.shape[1] == width
        torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3)


def test_squeezenet_is_torchvisions_on_its_own_units(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_0(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "squeezenet.pth")
    images = torch.rand(2, 3, 64, 64)
    maps = open_backbone("squeezenet", str(tmp_path / "squeezenet.pth")).network(2 * images - 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        torch.testing.assert_close(maps[-1], network.features((images - mean) / std), rtol=1e-4, atol=1e-5)
    assert [x.shape[1] for x in maps] == [128, 256, 512, 512]


def test_nothing_of_a_backbone_learns() -> None:
    network = open_backbone("lite0").network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_weights_that_cannot_be_used_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="needs a file") as raised:
        open_backbone("squeezenet")
    assert "--model.backbone-weights" in raised.value.fix
    with pytest.raises(InputError, match="is not a file"):
        open_backbone("lite0", str(tmp_path / "missing.pth"))
    whole = backbones._packaged("lite0").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:1000])
    with pytest.raises(CorruptError):
        open_backbone("lite0", str(tmp_path / "cut.pth"))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(MismatchError, match="no weights of lite0"):
        open_backbone("lite0", str(tmp_path / "other.pth"))
    with pytest.raises(MismatchError, match="no weights of squeezenet"):
        open_backbone("squeezenet", str(tmp_path / "other.pth"))
    monkeypatch.setitem(PUBLISHED, "lite0", PUBLISHED["lite0"]._replace(sha256="0" * 64))
    with pytest.raises(MismatchError, match="another version"):
        open_backbone("lite0")
    monkeypatch.setitem(PUBLISHED, "lite0", PUBLISHED["lite0"]._replace(package="no-such-package"))
    with pytest.raises(InputError, match="not installed"):
        open_backbone("lite0")
