"""The report's plots, as SVG that takes its ink from the page, so that it reads on a light and on a dark one.

A value is (median, low, high): drawn with a thin line from quartile to quartile, hollow or hatched where these are too far
apart to be trusted (rows.NOISY).
"""

import io
import re

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend is chosen before)
import rows as table  # noqa: E402

WIDTH = 6  # inches
INK, GROUND = "#010203", "#030201"  # replaced by currentColor and the page's ground
# One name has one colour in all plots, readable on both grounds; neighbours differ in lightness too.
COLOURS = {
    "naive": "#8c8c8c",
    "blocked": "#b09a00",
    "unfused": "#e69f00",
    "openblas": "#0072b2",
    "mkl": "#3d9be9",
    "blis": "#56b4b4",
    "onednn": "#009e73",
    "eigen": "#cc79a7",
    "libxsmm": "#7a9a3a",
    "pytorch": "#8f6fc4",
    "onnxruntime": "#4f9d9d",
    "ggml": "#a05a2c",
    "ggml-f16": "#d1a27f",
    "memcpy": "#8c8c8c",
    "read": "#8c8c8c",
}
# Of ours by type, where rows differ in that.
TYPES = {"f32": "#d55e00", "bf16": "#0072b2", "f16": "#56b4b4", "i8": "#009e73", "f8e4m3": "#cc79a7"}
OTHERS = ("#5b7fa7", "#8a6d3b", "#6f8f3f")
OURS, OURS_THREADS, OURS_PYTHON, OURS_SLOWER = "#d55e00", "#a63c06", "#f0955a", "#e3b08f"


def colour(name, best=None):
    """Of a label; `best` is the label of the best instruction set, beside which the others are pale."""
    if name.startswith("attend"):
        if "threads" in name:
            return OURS_THREADS
        if "Python" in name:
            return OURS_PYTHON
        return OURS if best in (None, name) else OURS_SLOWER
    first = re.split(r"[, _]", name)[0]
    return COLOURS.get(name) or COLOURS.get(first) or TYPES.get(first) or OTHERS[sum(map(ord, name)) % len(OTHERS)]


plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#808080",
        "grid.alpha": 0.25,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "hatch.color": GROUND,
        "svg.hashsalt": "attend",
    }
)


def is_noisy(value):
    return value[2] - value[1] > table.NOISY * value[0]


def plot(height):
    """All are as wide, so that their letters are as large: a phone shows them at 9 pixels, a desk at 16."""
    return plt.subplots(figsize=(WIDTH, height), layout="constrained")


def finish(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace(GROUND, "Canvas")
    # matplotlib leaves the default text black.
    svg = re.sub(r"(<text[^>]*style=\")", r"\1fill: currentColor; ", svg)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%" role="img"', svg, count=1)


def errors(values):
    return [[v[0] - v[1] for v in values], [v[2] - v[0] for v in values]]


def lines(series, x_label, y_label, ceilings=(), log=False, best=None):
    """series: {name: [(x, value)]}; ceilings: (name, y), drawn as lines across."""
    figure, axes = plot(3.4)
    for name, points in series.items():
        xs, values = zip(*sorted(points))
        ours = name.startswith("attend")
        shade = colour(name, best)
        axes.errorbar(xs, [v[0] for v in values], yerr=errors(values), linewidth=2.5 if ours else 1.5, elinewidth=1,
                      color=shade, zorder=3 if ours else 2)
        for x, v in zip(xs, values):
            axes.plot([x], [v[0]], marker="o", markersize=5, color=shade, zorder=4,
                      markerfacecolor=GROUND if is_noisy(v) else shade)
    for name, y in ceilings:
        axes.axhline(y, color=INK, linestyle="--", linewidth=1)
        axes.annotate(name, (0.01, y), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points")
    axes.set_xscale("log", base=2)
    xs = sorted({p[0] for points in series.values() for p in points})
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.minorticks_off()
    axes.set_yscale("log") if log else axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return finish(figure)


def bars(groups, value_label, log=False, best=None, named=False):
    """groups: {label: {name: value}}, one cluster of horizontal bars each; `named`: each tells its name, which is no library's."""
    lines = sum(len(values) for values in groups.values()) + 1.6 * len(groups)
    figure, axes = plot(0.17 * lines + 0.6)
    y, largest = 0, 0
    for label, values in groups.items():
        axes.annotate(label, (0, y), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center")
        y += 1
        for name, value in values.items():
            axes.barh(y, value[0], height=0.9, color=colour(name, best),
                      hatch="////" if is_noisy(value) else None, linewidth=0)
            axes.plot(value[1:], [y, y], color=INK, linewidth=1.2, solid_capstyle="butt")
            end = max(value[0], value[2])
            largest = max(largest, end)
            axes.annotate(f" {value[0]:.3g}" + (f"  {name}" if named else ""), (end, y), va="center", fontsize=8)
            y += 1
        y += 0.6
    axes.set_yticks([])
    axes.set_ylim(y - 0.8, -0.8)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(right=largest * 2.2)
    else:
        axes.set_xlim(0, largest * (1.35 if named else 1.1))
    axes.set_xlabel(value_label)
    return finish(figure)


def panels(groups, value_label, footer, spelled):
    """groups: {title: {name: value}}, names written as spelled(name), beside each other, each with a scale of its own and its
    largest bar on top: a picture that stands alone, so names are at the bars and what is to be known of them below."""
    most = max(len(values) for values in groups.values())
    size = 3.3 * len(groups), 0.2 * most + 1 + 0.13 * (footer.count("\n") + 1)
    figure, row = plt.subplots(1, len(groups), figsize=size, layout="constrained", squeeze=False)
    for axes, (title, values) in zip(row[0], groups.items()):
        ordered = sorted(values.items(), key=lambda item: -item[1][0])
        largest = max(max(value[0], value[2]) for value in values.values())
        for y, (name, value) in enumerate(ordered):
            axes.barh(y, value[0], height=0.75, color=colour(name), hatch="////" if is_noisy(value) else None, linewidth=0)
            axes.plot(value[1:], [y, y], color=INK, linewidth=1.2, solid_capstyle="butt")
            axes.annotate(f"{value[0]:.3g}", (max(value[0], value[2]), y), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_yticks(range(len(ordered)), [spelled(name) for name, _ in ordered])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(most - 0.4, -0.6)  # bars of all panels are as thick
        axes.set_xlim(0, largest * 1.18)
        axes.grid(False, axis="y")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel(value_label)
    figure.supxlabel(footer, x=0.01, ha="left", fontsize=8)
    return finish(figure)


def roofline(points, peak, bandwidth):
    """points: {(task, who): [(flops per byte, value)]}: a marker for each task, a colour for each library."""
    figure, axes = plot(4)
    all_x = [x for series in points.values() for x, _ in series]
    low, high = min([*all_x, 0.1]) / 2, max([*all_x, 10]) * 2
    axes.plot([low, peak / bandwidth, high], [low * bandwidth, peak, peak], color=INK, linestyle="--", linewidth=1)
    axes.annotate(f"FMA peak {peak:.0f} GFLOP/s", (high, peak), va="bottom", ha="right")
    axes.annotate(f"memory {bandwidth:.0f} GB/s", (low * 1.2, low * 1.4 * bandwidth), va="bottom", rotation=35)
    tasks = list(dict.fromkeys(task for task, _ in points))
    markers = dict(zip(tasks, "os^Dv*"))
    for (task, who), series in points.items():
        xs, values = zip(*series)
        ours = who.startswith("attend")
        axes.scatter(xs, [v[0] for v in values], s=30 if ours else 14, marker=markers[task], color=colour(who),
                     alpha=1 if ours else 0.6, zorder=3 if ours else 2, linewidths=0)
    for task in tasks:
        axes.scatter([], [], marker=markers[task], color=INK, label=task)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("flops per byte that must be moved")
    axes.set_ylabel("GFLOP/s, one thread")
    axes.legend(loc="lower right")
    return finish(figure)
