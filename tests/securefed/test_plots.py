"""How figures are saved."""

import matplotlib as mpl
from matplotlib.figure import Figure

from securefed.plots import style


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
