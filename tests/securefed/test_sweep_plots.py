"""What the plots of a sweep show, and what its page says about reading its table."""

import re
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from statistics import stdev
from types import SimpleNamespace

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from securefed.plots import style
from securefed.sweep import plots
from securefed.sweep.table import write_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sweep.md"

ENCODERS = (
    "ViT-B-32/openai",
    "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
    "hf-hub:microsoft/BiomedCLIP-PubMedBERT_384-vit_base_patch16_224",
    "cost $5",
)


def finished(accuracy):
    return SimpleNamespace(summary={"mean": {"ensemble": {"accuracy": accuracy}}})


@pytest.fixture
def drawn(monkeypatch):
    """{name: figure} of what is drawn, laid out and not saved."""
    kept = {}

    @contextmanager
    def figure(_folder, name):
        with mpl.rc_context(style._STYLE):
            kept[name] = Figure(figsize=(7.2, 4.2), layout="constrained")
            yield kept[name]
            style._lay_out(kept[name])

    monkeypatch.setattr(plots, "figure", figure)
    return kept


def plot(values, folder):
    """Draw a sweep over `values` of `encoder.name` and two methods; the first value has no result of the second."""
    keys = ("encoder.name", "federation.method")
    pairs = list(product(values, ("fedmedclip", "local")))
    cells = [SimpleNamespace(name=str(n), values=dict(zip(keys, pair, strict=True))) for n, pair in enumerate(pairs)]
    results = {cell.name: finished(0.5 + 0.01 * int(cell.name)) for cell in cells}
    results["1"] = SimpleNamespace(summary=None)
    plots.plot_sweep(SimpleNamespace(keys=keys, cells=cells), results, folder)


def test_words_as_ticks_do_not_overprint_each_other_and_stay_in_the_figure(tmp_path, drawn):
    plot(ENCODERS, tmp_path)
    figure = drawn["accuracy_by_encoder_name"]
    (axes,) = figure.axes
    labels = [label for label in axes.get_xticklabels() if label.get_text()]
    assert [label.get_text() for label in labels] == [style.shown(name) for name in ENCODERS]
    ends = [label.get_window_extent().x1 for label in labels]
    for label, (one, other) in zip(labels, pairwise(ends), strict=False):
        assert label.get_rotation() == 30
        assert other - one > 2 * label.get_fontsize()
    box, (width, _) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    lines = [list(container.lines[0].get_xdata()) for container in axes.containers]
    assert lines == [[0, 1, 2, 3], [1, 2, 3]]  # the two long names are apart, and each method is at its names


@pytest.mark.parametrize("values", [(True, False), ("b", "a")])
def test_short_words_stand_upright_in_the_order_of_the_grid(tmp_path, drawn, values):
    plot(values, tmp_path)
    labels = [label for label in drawn["accuracy_by_encoder_name"].axes[0].get_xticklabels() if label.get_text()]
    assert [(label.get_text(), label.get_rotation()) for label in labels] == [(str(value), 0) for value in values]


def test_the_page_has_the_deviation_of_a_sample_as_plots_have(tmp_path, monkeypatch, capsys):
    values = {"fedmedclip": [0.5, 0.7, 0.6], "local": [0.4, 0.5, 0.9]}
    rows = [
        {"federation.method": method, "site": site, "part": "ensemble", "metric": "accuracy", "value": value}
        for method, figures in values.items()
        for value in figures
        for site in ("north", "mean over sites")
    ]
    folder = tmp_path / "sweeps" / "grid"
    folder.mkdir(parents=True)
    write_table(folder, rows)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(example, str(PAGE), "exec"), {})
    printed = [eval(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["federation.method"]: row["value_stddev"] for row in printed} == pytest.approx(
        {method: stdev(figures) for method, figures in values.items()}
    )
