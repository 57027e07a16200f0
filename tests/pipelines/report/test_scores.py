"""The scores on a report are those of these weights, or said not to be, and only what compares stands side by side."""

import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import tyro
from PIL import Image

from data.files.atomic import write_json
from pipelines.scoring.config import ScoreConfig
from tests.report_pages import Page, make_page, untrained_run

ORIGIN = {"features": "inception", "reference": "photos.zip"}


def entry(value: float = 12.5, **more: Any) -> dict[str, Any]:
    return {"value": value, "num_generated": 5000, "num_real": 4000} | more


def sections(page: Page) -> dict[str, str]:
    """The HTML of the header and of each section."""
    return dict(
        re.findall(r'<(?:header|section) id="(\w+)"[^>]*>(.*?)</(?:header|section)>', page.bytes.decode(), re.S)
    )


def test_scores_show_their_intervals_where_they_have_them(tmp_path: Path) -> None:
    kid = entry(0.0123456, interval=[0.01, 0.015], real_floor=-0.0002, num_generated=200)
    one = untrained_run(tmp_path / "one", 1000, scores={"kid": kid} | ORIGIN)
    other = untrained_run(tmp_path / "other", 1000, scores={"fid": entry()} | ORIGIN)
    alone = make_page(one).text
    for text in ("0.01 to 0.015", "95% interval", "real\N{NO-BREAK SPACE}floor\N{NO-BREAK SPACE}-0.0002"):
        assert text in alone
    assert "half of real" not in alone
    both = make_page(one, other).text
    assert "kid · one" in both
    assert "fid · other" in both
    assert "Do not compare" not in both
    assert "interval" not in make_page(other).text


@pytest.mark.parametrize(
    ("name", "count", "biased"), [("fid", 2047, True), ("fd-offline", 200, True), ("fid", 2048, False)]
)
def test_few_images_are_said_to_bias_frechet_distances(name: str, count: int, biased: bool, tmp_path: Path) -> None:
    scores = {name: entry(num_generated=count), "kid": entry(num_real=20)} | ORIGIN
    assert ("biased upward" in make_page(untrained_run(tmp_path, 1000, scores=scores)).text) == biased


def test_of_whose_critic_saw_imagenet_features_it_is_said(tmp_path: Path) -> None:
    scores = {"fid": entry()} | ORIGIN
    plain, seen = (untrained_run(tmp_path / name, 1000, scores=scores, scores_best=scores) for name in ("own", "seen"))
    for frozen in ({}, {"perceptual": "0" * 64}, [1], "backbone"):  # the last two are damage
        described = {"nimg": 1000, "data": ["photos.zip"], "frozen": frozen}
        write_json(plain / "weights" / "config.json", described)
        assert "critic was trained on ImageNet" not in make_page(plain).text
    write_json(seen / "weights" / "config.json", described | {"frozen": {"backbone": "0" * 64}})
    told = re.findall(r"Distances on ImageNet features favour[^<]*", make_page(plain, seen).bytes.decode())
    assert len(told) == 1
    assert told[0].endswith("(Kynkaanniemi et al. 2023), as was that of seen.")


def test_scores_of_earlier_weights_say_so_and_give_the_command_that_measures_them_again(tmp_path: Path) -> None:
    settings = {"features": "offline", "num": 300, "seed": 7, "resize": "clean", "metrics": ["modes", "kid"]}
    stored = {name: entry() for name in ("kd-offline", "modes")} | settings
    run = untrained_run(tmp_path / "a run", 1500, scores=stored | {"nimg": 1000})
    Image.new("RGB", (16, 16)).save(run / "neighbours.png")
    write_json(run / "neighbours.json", {"closer_than_5_percent_of_real": 0.25, "nimg": 500, "features": "offline"})
    parts = sections(make_page(run))
    for name, nimg in (("header", "1,000"), ("scores", "1,000"), ("neighbours", "500")):
        assert parts[name].count(f"measured at {nimg} images; its weights are now of 1,500") == 1, name
    for name in ("header", "scores"):
        (command,) = re.findall(r"<code>(codegan score[^<]*)</code>", parts[name])
        program, verb, *flags = shlex.split(unescape(command))
        again = tyro.cli(ScoreConfig, args=flags, config=(tyro.conf.FlagCreatePairsOff,))
        assert (program, verb, again.run, again.data) == ("codegan", "score", run, ("photos.zip",))
        assert (again.features, again.num, again.seed, again.protocol) == ("offline", 300, 7, None)
        assert again.metrics == ("modes", "kid")
    assert "--features offline" in parts["neighbours"]
    for current in ({"nimg": 1500}, {}):  # files of an older version do not say it
        write_json(run / "scores.json", stored | current)
        write_json(run / "neighbours.json", {"closer_than_5_percent_of_real": 0.25} | current)
        assert "measured at" not in make_page(run).text


def test_a_protocol_and_the_best_weights_have_tables_of_their_own(tmp_path: Path) -> None:
    departures = ["at 100 instead of 50,000", "at 64 px instead of 256"]
    run = untrained_run(
        tmp_path,
        2000,
        scores={"kid": entry(0.25)} | ORIGIN,
        scores_accel={"fid": entry(31.5), "protocol": "accel", "protocol_departures": departures} | ORIGIN,
        scores_giu={"fid": entry(32.5), "protocol": "giu", "protocol_departures": [], "nimg": 1000} | ORIGIN,
        scores_accel_best={"fid": entry(30.5), "protocol": "accel", "best": True} | ORIGIN,
        scores_again={"fid": entry(33.5), "protocol": "giu"} | ORIGIN,
        scores_best={"kid": entry(0.125), "best": True, "nimg": 1000} | ORIGIN,
    )
    write_json(run / "weights" / "best" / "config.json", {"nimg": 1000})
    page = make_page(run)
    shown = sections(page)["scores"]
    titles = re.findall("<h3>(.*?)</h3>", shown)
    assert titles == ["Again", "Best weights", "Protocol accel", "Protocol accel · best weights", "Protocol giu"]
    tables = [re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', rows) for rows in shown.split("</thead>")[1:]]
    assert tables == [
        *([("kid", "0.25")], [("fid", "33.5")], [("kid", "0.125")]),
        *([("fid", "31.5")], [("fid", "30.5")], [("fid", "32.5")]),
    ]
    assert "Protocol accel, at 100 instead of 50,000, at 64 px instead of 256." in page.text
    assert "Protocol giu, as in the paper." in page.text
    assert page.text.count("measured at 1,000 images; its weights are now of 2,000") == 1
    assert "--protocol giu" in shown
    assert "measured at" not in sections(page)["header"]
    write_json(run / "weights" / "best" / "config.json", {"nimg": 1500})
    best = sections(make_page(run))["scores"].partition("Best weights")[2]
    assert "its weights are now of 1,500" in best
    assert "--best" in best


@pytest.mark.parametrize(
    "damaged",
    [
        "{",
        "[1]",
        "7",
        "null",
        pytest.param("[" * 100_000, id="deep"),
        '{"fid": {"value": "x"}}',
        '{"fid": {"value": NaN}}',
        '{"fid": {"value": true}}',
    ],
)
def test_damaged_scores_cost_their_section_only(damaged: str, tmp_path: Path) -> None:
    whole = untrained_run(tmp_path / "whole", 1000, scores={"fid": entry(31.5)} | ORIGIN)
    run = untrained_run(tmp_path / "damaged", 1000, scores=damaged, scores_accel={"fid": entry(32.5)} | ORIGIN)
    for runs, values in (((run,), ["32.5"]), ((whole, run), ["31.5", "32.5"])):
        page = make_page(*runs)
        shown = sections(page)["scores"]
        assert re.findall("<td>(3[^<]*)</td>", shown) == values
        assert re.search("scores.json of damaged (cannot be read|holds no scores)", shown)
        assert f"codegan score --run {run} --data photos.zip" in shown
        assert len(page.sections) == 9


@pytest.mark.parametrize(
    "damaged", ["{", "[1]", '{"closer_than_5_percent_of_real": "x", "generated_to_real": 5, "nimg": "x", "seed": null}']
)
def test_damaged_numbers_of_neighbours_leave_their_sheet_and_the_page(damaged: str, tmp_path: Path) -> None:
    run = untrained_run(tmp_path, 1000, scores={"fid": entry(31.5)} | ORIGIN, neighbours=damaged)
    Image.new("RGB", (16, 16)).save(run / "neighbours.png")
    page = make_page(run)
    assert "31.5" in page.text
    assert page.classes("img") == ["sheet"]
    assert "nearer to a training image than" not in page.text
    assert ("neighbours.json of" in page.text) == (len(damaged) < 9)


def test_what_is_no_number_beside_a_score_is_not_shown(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "real_floor": "x",
        "interval": [1, "x"],
        "autoencoder_floor": [],
        "num_real": {},
        "num_generated": None,
    }
    factors = {"sky": 3, "ground": {"accuracy": "x", "values": []}}
    scores = {"modes": entry(0.5) | odd | {"factors": factors}, "seed": 7, "nimg": "x", "features": [1]}
    text = make_page(untrained_run(tmp_path, 1000, scores=scores | {"protocol_departures": 3})).text
    assert "modes0.5" in text
    for column in ("95% interval", "half of real"):
        assert column not in text


def test_scores_of_several_runs_say_in_what_they_do_not_compare(tmp_path: Path) -> None:
    def make(name: str, count: int, **changes: Any) -> Path:
        scores = {metric: entry(num_generated=count) for metric in ("fid", "kid", "lpips-diversity")} | ORIGIN | changes
        return untrained_run(tmp_path / name, 1000, scores=scores)

    few, many, other = make("few", 2048), make("many", 50_000), make("other", 2048, resize="legacy_pytorch", size=32)
    assert "Do not compare" not in make_page(few).text
    assert "Do not compare" not in make_page(few, make("same", 2048)).text
    # the other two are unbiased: what they are expected to be does not depend on the counts
    told = re.findall(r"Do not compare[^<]*", make_page(few, many).bytes.decode())
    assert told == ["Do not compare fid: measured with different counts of generated images."]
    told = re.findall(r"Do not compare[^<]*", make_page(few, other).bytes.decode())
    assert told == ["Do not compare fid, kid, lpips-diversity: measured with different resizing, sizes."]


def test_modes_are_shown_by_factor_with_the_accuracy_of_the_network_that_names_them(tmp_path: Path) -> None:
    def factor(accuracy: float) -> dict[str, float]:
        return {"values_covered": 3, "values": 4, "total_variation": 0.125, "real_floor": 0.0625, "accuracy": accuracy}

    modes = entry(0.75, factors={"sky": factor(0.975), "sun_side": factor(0.5)})
    run = untrained_run(tmp_path / "run", 1000, scores={"modes": modes} | ORIGIN)
    shown = sections(make_page(run))["scores"].partition("<details>")[2].partition("</details>")[0]
    lines = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", line) for line in shown.split("<tr>")[2:]]
    assert lines == [
        ["sky", "3 of 4", "0.125", "-", "0.0625", "0.975"],
        ["sun_side", "3 of 4", "0.125", "-", "0.0625", "0.5"],
    ]
    other = untrained_run(tmp_path / "other", 1000, scores={"fid": entry()} | ORIGIN)
    assert "Modes by factor" not in make_page(other).text
    assert "sky · run" in make_page(other, run).text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fid", ""),
        ("is", "of one half alone"),
        ("is-squeezenet", "of one half alone"),
        ("lpips-diversity", "pairs of real"),
    ],
)
def test_the_real_floor_of_scores_that_compare_no_sets_is_not_called_a_comparison(
    name: str, told: str, tmp_path: Path
) -> None:
    text = make_page(untrained_run(tmp_path, 1000, scores={name: entry()} | ORIGIN)).text
    for other in ("of one half alone", "pairs of real"):
        assert (other in text) == (other == told)
