"""What plots show, and how they are saved."""

from contextlib import contextmanager
from itertools import pairwise

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from audit.history import read_history
from audit.log import read_events
from securefed.plots import curves, quality, style
from securefed.run_folder import MetricRow
from securefed.simulation import simulate


@pytest.fixture
def drawn(monkeypatch):
    """{name: figure} of what is drawn, kept and not saved."""
    kept = {}

    @contextmanager
    def figure(_folder, name, width=7.2, height=4.2):
        with mpl.rc_context(style._STYLE):
            kept[name] = Figure(figsize=(width, height), layout="constrained")
            yield kept[name]

    for module in (curves, quality):
        monkeypatch.setattr(module, "figure", figure)
    return kept


def draw(drawing):
    panels = drawing.subplots(1, 2, sharey=True)
    for index, axes in enumerate(panels):
        axes.plot([1, 2, 30], [0.5, 0.75, 1e4], label="a site with a long name", **style.look(index))
        axes.set(title="panel", xlabel="round", ylabel="a label")
    style.legend_outside(panels[1])
    drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center")


def test_a_figure_is_laid_out_once_and_has_the_bytes_of_one_that_is_laid_out_in_saving(tmp_path):
    with style.figure(tmp_path, "quick") as drawing:
        draw(drawing)
    with mpl.rc_context(style._STYLE):
        slow = Figure(figsize=(7.2, 4.2), layout="constrained")
        draw(slow)
        slow.savefig(tmp_path / "slow.svg", metadata={"Date": None})
        slow.set_layout_engine("none")
        slow.savefig(tmp_path / "slow.png", metadata={"Software": None})
    for kind in ("svg", "png"):
        assert (tmp_path / f"quick.{kind}").read_bytes() == (tmp_path / f"slow.{kind}").read_bytes()


def test_the_bars_of_bytes_add_up_to_what_the_summary_has(small_run, tmp_path, drawn):
    config = small_run(simulation={"drop": ["site1@2:ShareKeys", "site4@3:Unmasking"]})
    result = simulate(config, output=tmp_path / "run", cache_dir=tmp_path / "cache")
    history = read_history(read_events(result.folder.log))
    assert len(history.rounds) > len(history.training) == 3  # the last one only scores
    curves.plot_bytes(history.training, tmp_path)
    axes = drawn["bytes"].axes[0]
    stages = {place: label.get_text() for place, label in enumerate(axes.get_yticklabels())}
    for direction in ("upload", "download"):
        shown = sum(
            bar.get_width()
            for bar in axes.patches
            if bar.get_width() and stages[round(bar.get_y() + bar.get_height() / 2)].startswith(direction)
        )
        assert 1024 * shown == pytest.approx(result.summary["communication"][f"{direction}_bytes_per_client_round"])


def accuracies(sites):
    rows = [MetricRow(number, site, "val", "ensemble", "accuracy", 0.5) for site in sites for number in (0, 1)]
    return rows + [MetricRow(1, site, "train", "fam.up", "keep_ratio", 0.9) for site in sites]


AWKWARD = ("cost $5", "$\\frac{1$ b", "_hidden", "\u4e2d\u6587", "North")


def test_any_name_is_drawn_and_named_in_the_legend(tmp_path, drawn):
    """Warnings are errors here: a glyph that the font lacks would be one."""
    curves.plot_accuracy(accuracies(AWKWARD), 1, tmp_path)
    curves.plot_keep_ratios(accuracies(AWKWARD), tmp_path)
    curve = {"confidence": [0.5, 0.9], "accuracy": [0.4, 0.8], "count": [3, 4]}
    quality.plot_reliability(dict.fromkeys(AWKWARD, curve), tmp_path)
    quality.plot_confusion({site: [[1, 0], [0, 2]] for site in AWKWARD}, ["$_$", "\u4e2d"], tmp_path)
    expected = {"cost $5", "$\\frac{1$ b", "\u200b_hidden", "(U+4E2D)(U+6587)", "North"}
    for name, figure in drawn.items():
        with mpl.rc_context(style._STYLE):
            figure.savefig(tmp_path / f"{name}.svg")
        if name != "confusion":
            (legend,) = figure.findobj(Legend)
            assert {text.get_text() for text in legend.get_texts()} >= expected, name
    assert [axes.get_title(loc="left") for axes in drawn["confusion"].axes[:5]] == [
        style.shown(name) for name in AWKWARD
    ]


def test_a_legend_of_many_sites_stays_beside_the_plot(tmp_path, drawn):
    sites = [f"site{place:02d}" for place in range(60)]
    curves.plot_accuracy(accuracies(sites), 1, tmp_path)
    curves.plot_keep_ratios(accuracies(sites), tmp_path)
    curve = {"confidence": [0.5, 0.9], "accuracy": [0.4, 0.8], "count": [3, 4]}
    quality.plot_reliability(dict.fromkeys(sites, curve), tmp_path)
    others = {"accuracy": {"mean over sites", "kept: round 1"}, "keep_ratios": set(), "reliability": {"calibrated"}}
    for name, more in others.items():
        figure = drawn[name]
        with mpl.rc_context(style._STYLE):
            figure.savefig(tmp_path / f"{name}.svg")
        (legend,) = figure.findobj(Legend)
        assert {text.get_text() for text in legend.get_texts()} == {"each of 60 sites", *more}
        box = legend.get_window_extent()
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


LONG = {
    "capitals": ["UNIVERSITÄTSKLINIKUM HAMBURG-EPPENDORF", "MASSACHUSETTS GENERAL HOSPITAL", "N"],
    "widest": ["W" * 60, "M" * 28],
    "many": [f"hospital_{place:03d} of a town far away" for place in range(15)],
    "usual": [f"hospital of town {place}" for place in range(8)],
}


@pytest.mark.parametrize("sites", LONG.values(), ids=LONG.keys())
def test_names_labels_and_ticks_of_any_length_stay_inside_of_the_figure(tmp_path, drawn, sites):
    curves.plot_accuracy(accuracies(sites), 1, tmp_path)
    curves.plot_keep_ratios(accuracies(sites), tmp_path)
    curve = {"confidence": [0.5, 0.9], "accuracy": [0.4, 0.8], "count": [3, 4]}
    quality.plot_reliability(dict.fromkeys(sites, curve), tmp_path)
    quality.plot_confusion({site: [[1, 0], [0, 2]] for site in sites}, ["yes", "no"], tmp_path)
    for name, figure in drawn.items():
        with mpl.rc_context(style._STYLE):
            style._lay_out(figure)
            boxes = []
            for resolution in (72, 130):  # of SVG and PNG: the text of the latter is a little wider
                figure.dpi = resolution
                boxes.append(figure.get_tightbbox())
        width, height = figure.get_size_inches()
        for box in boxes:
            assert box.x0 >= 0, name
            assert box.y0 >= 0, name
            assert box.x1 <= width, name
            assert box.y1 <= height, name
    assert drawn["reliability"].axes[0].get_window_extent().height > 3 * drawn["reliability"].dpi
    titles = [axes._left_title.get_window_extent() for axes in drawn["confusion"].axes if axes.get_title(loc="left")]
    for one, other in pairwise(titles):
        assert one.y0 != other.y0 or one.x1 < other.x0


@pytest.mark.parametrize("sites", [1, 4])
def test_long_names_of_classes_take_no_room_from_the_confusion_matrices(tmp_path, drawn, sites):
    sides = []
    for names in (["yes", "no"], ["a class with a very long name", "another with such a name"]):
        quality.plot_confusion({f"site{place}": [[1, 0], [0, 2]] for place in range(sites)}, names, tmp_path)
        with mpl.rc_context(style._STYLE):
            style._lay_out(drawn["confusion"])
        sides.append(drawn["confusion"].axes[0].get_window_extent().width / drawn["confusion"].dpi)
    assert sides[1] > 0.8 * sides[0]


def test_one_round_is_a_tick_and_its_mean_a_point(tmp_path, drawn):
    rows = [row for row in accuracies(["north", "south"]) if row.round == 1]
    curves.plot_accuracy(rows, 1, tmp_path)
    curves.plot_keep_ratios([*rows, MetricRow(1, "north", "train", "fam.down", "keep_ratio", 0.999)], tmp_path)
    for name, figure in drawn.items():
        with mpl.rc_context(style._STYLE):
            figure.savefig(tmp_path / f"{name}.svg")
        for axes in filter(lambda axes: axes.get_visible(), figure.axes):
            low, high = axes.get_xlim()
            assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
    (mean,) = (line for line in drawn["accuracy"].axes[0].lines if line.get_label() == "mean over sites")
    assert mean.get_marker() == "o"


def test_no_share_above_all_has_a_tick(tmp_path, drawn):
    for lowest in (0.5, 0.9, 0.98, 0.996, 1.0):
        rows = [MetricRow(number, "north", "train", "fam.up", "keep_ratio", lowest) for number in (1, 2)]
        curves.plot_keep_ratios(rows, tmp_path)
        ticks = drawn["keep_ratios"].axes[0].get_yticks()
        assert max(ticks) == pytest.approx(1), lowest


def test_long_names_keep_both_ends_and_large_figures_fit_a_png(tmp_path):
    assert style.shown("a" * 50 + "ward 17 of the north") == "a" * 15 + "... the north"
    with style.figure(tmp_path, "tall", width=2, height=600) as drawing:
        drawing.subplots()
    with Image.open(tmp_path / "tall.png") as image:
        assert image.height <= 60_000
