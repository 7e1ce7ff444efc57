"""The report's plots: small enough to be read on a phone, in colours that colour-blind readers tell apart."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from semcot.evaluation.judging import Row
from semcot.evaluation.thoughts import Thoughts

# Okabe and Ito's, less the yellow, which white paper swallows. Markers tell methods apart where colours come again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX"
STYLE = {"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}
WIDTH = 5.0  # inches
Plot = tuple[str, Figure]


def draw(record: Row, thoughts: Thoughts | None) -> dict[str, Plot]:
    """The plots that there are figures for: by the name of their file a caption and the figure."""
    rows = record.get("means") or record["eval"]
    timed = [row for row in record["eval"] if row["latency_p50_s"]]
    swept = [row for row in record["eval"] if row["batch_sweep"]]
    plots = {"accuracy": accuracy(rows)}
    if timed:
        plots["accuracy_latency"] = accuracy_against_latency(timed, rows)
    if swept:
        plots["batch_sweep"] = batch_sweep(swept, [row["method"] for row in rows])
    if thoughts is not None and thoughts.likelihood is not None:
        plots["alignment"] = heat_map(thoughts)
        plots["plane"] = plane(thoughts)
    return plots


@contextmanager
def _axes(height: float) -> Iterator[Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.add_subplot()


def _look(methods: Sequence[str]) -> Callable[[str], dict[str, str]]:
    """Colour and marker of each method, by its place among all."""
    place = {method: i for i, method in enumerate(dict.fromkeys(methods))}

    def look(method: str) -> dict[str, str]:
        i = place[method]
        return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]}

    return look


def _reach(row: Row) -> list[list[float]]:
    """How far the interval of strict accuracy reaches down and up, in points; not at all where there is none."""
    share, ends = row["accuracy"], row["accuracy_ci95"]
    low, high = ends or (share, share)
    return [[max(0.0, 100 * (share - low))], [max(0.0, 100 * (high - share))]]


def accuracy(rows: Sequence[Row]) -> Plot:
    """Strict accuracy of each method, with its interval."""
    look = _look([row["method"] for row in rows])
    with _axes(0.9 + 0.3 * len(rows)) as axes:
        for i, row in enumerate(rows):
            axes.errorbar(100 * row["accuracy"], i, xerr=_reach(row), capsize=3, **look(row["method"]))
        labels = [row["method"] + (f", seed {row['seed']}" if _several(rows) else "") for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.invert_yaxis()
        axes.set(xlabel="strict accuracy, %", xlim=(-2, 102))
        return "Strict accuracy and its 95 % interval.", axes.figure


def accuracy_against_latency(timed: Sequence[Row], rows: Sequence[Row]) -> Plot:
    """Strict accuracy, of all seeds, against the time to an answer; up and left is better."""
    look, share = _look([row["method"] for row in rows]), {row["method"]: row for row in rows}
    with _axes(_height([row["method"] for row in timed])) as axes:
        for row in timed:
            method, seconds = row["method"], row["latency_p50_s"]
            shown = share[method]
            axes.errorbar(
                seconds,
                100 * shown["accuracy"],
                xerr=[[0], [row["latency_p95_s"] - seconds]],
                yerr=_reach(shown),
                capsize=3,
                label=method,
                linestyle="none",
                **look(method),
            )
        axes.set(xscale="log", xlabel="seconds to an answer, batch size 1", ylabel="strict accuracy, %", ylim=(-4, 104))
        axes.margins(x=0.15)
        for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            set_formatter(FuncFormatter(_plain))
        _legend(axes)
        caption = (
            "Up and to the left is better. Bars: the 95 % interval of accuracy, and the time from the median to the "
            "95th percentile."
        )
        return caption, axes.figure


def batch_sweep(swept: Sequence[Row], methods: Sequence[str]) -> Plot:
    """Throughput against batch size."""
    look = _look(methods)
    with _axes(_height([row["method"] for row in swept])) as axes:
        for row in swept:
            sizes, speeds = zip(
                *((step["batch_size"], step["samples_per_s"]) for step in row["batch_sweep"]), strict=True
            )
            axes.plot(sizes, speeds, label=row["method"], **look(row["method"]))
        axes.set(xscale="log", yscale="log", xlabel="batch size", ylabel="questions answered per second")
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.xaxis.set_minor_locator(NullLocator())
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(FuncFormatter(_plain))
        _legend(axes)
        return "Throughput by batch size.", axes.figure


def heat_map(thoughts: Thoughts) -> Plot:
    """The likelihood of each reasoning under each of the first thoughts; the diagonal is the own one."""
    with _axes(4.2) as axes:
        axes.grid(False)
        image = axes.imshow(thoughts.likelihood, cmap="cividis")
        axes.set(xlabel="reasoning of problem", ylabel="thoughts of problem")
        axes.figure.colorbar(image, ax=axes, label="mean log-likelihood of a token", shrink=0.85)
        first, found = len(thoughts.likelihood), thoughts.alignment[0]
        caption = (
            f"How likely thoughts make reasonings, the first {first} problems; own pairs on the diagonal. Among all "
            f"{found['pool']}, {found['thoughts_to_reasonings']:.0%} of the thoughts make their own likeliest."
        )
        return caption, axes.figure


def plane(thoughts: Thoughts) -> Plot:
    """Thoughts beside reasonings on two principal components, each joined to its own."""
    own, told = thoughts.plane
    with _axes(4.2) as axes:
        axes.plot(*np.stack([own, told]).transpose(2, 0, 1), color="0.75", linewidth=0.8, zorder=0)
        axes.scatter(*own.T, color=COLOURS[0], marker="o", s=22, label="thoughts")
        axes.scatter(*told.T, facecolor="none", edgecolor=COLOURS[1], marker="s", s=22, label="reasoning")
        axes.set(xlabel="first principal component", ylabel="second principal component")
        _legend(axes)
        caption = (
            f"Mean states in a plane, the first {len(own)} problems; a line joins thoughts and their own reasoning."
        )
        return caption, axes.figure


def _plain(value: float, _: int | None = None) -> str:
    """The label of a logarithmic axis at 1, 2 and 5 of each power of ten, as a plain number."""
    return f"{value:g}" if f"{value:.0e}"[0] in "125" else ""


def _several(rows: Sequence[Row]) -> bool:
    return len({row.get("seed") for row in rows}) > 1


def _columns(labels: Sequence[str]) -> int:
    """How many columns of a legend have room beside each other: a letter takes about 0.075 inches."""
    return max(1, min(3, len(labels), int(WIDTH / (0.5 + 0.075 * max(map(len, labels))))))


def _height(labels: Sequence[str]) -> float:
    """Of a plot with a legend, in inches."""
    return 3.2 + 0.2 * ceil(len(labels) / _columns(labels))


def _legend(axes: Axes) -> None:
    labels = axes.get_legend_handles_labels()[1]
    axes.figure.legend(loc="outside upper left", ncols=_columns(labels), frameon=False)
