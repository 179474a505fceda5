"""What plots show, and how they are saved."""

from contextlib import contextmanager

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from audit.history import read_history
from audit.log import read_events
from securefed.plots import curves, style
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

    for module in (curves,):
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
