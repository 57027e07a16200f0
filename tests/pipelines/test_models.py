"""The table of costs against costs counted by hand."""

import pytest

from data.errors import UsageError
from pipelines.configs import ModelsConfig
from pipelines.models import cost, models
from stage2_codegen.configs.registry import SIDES
from stage2_codegen.variants import VARIANTS


def test_flops_of_accel_are_those_of_its_convolutions() -> None:
    """Width 16 at code 3 x 16 x 16: dense z -> 4x4x16, convolutions 16 -> 16 at 4, 8, 8, 16, 16, and 1 x 1 to 3."""
    taken = cost("accel", (3, 16, 16), width=16, z_dim=8)
    convolutions = 9 * 16 * 16 * (4**2 + 2 * 8**2 + 2 * 16**2)
    dense, last = 8 * 16 * 4 * 4, 16 * 3 * 16**2
    assert taken.generator_flops == 2 * (convolutions + dense + last)
    mirrored = convolutions + last + 16 * 16 * 16 + 16  # dense 4 x 4 x 16 -> 16 -> 1
    assert taken.critic_flops == 2 * mirrored


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_a_cost_at_every_size(name: str) -> None:
    costs = [cost(name, (3, side, side)) for side in SIDES]
    for flops in ([taken.generator_flops for taken in costs], [taken.critic_flops for taken in costs]):
        assert flops == sorted(flops)
        assert flops[0] > 0


def test_the_table_has_a_row_for_every_variant(capsys: pytest.CaptureFixture[str]) -> None:
    models(ModelsConfig(sizes=(16,)))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:2] for row in rows[1:]] == [[f"| {name}", "16"] for name in VARIANTS]
    with pytest.raises(UsageError):
        models(ModelsConfig(sizes=(48,)))
