"""The report's plots, as SVG that takes its ink from the page, so that it reads on a light and on a dark one."""

import io
import re

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend is chosen before)

INK = "#010203"  # replaced by currentColor
# Okabe and Ito's palette, told apart by most eyes and on both grounds. One name has one colour in all plots.
COLOURS = {
    "naive": "#8c8c8c",
    "blocked": "#b09a00",
    "unfused": "#e69f00",
    "openblas": "#0072b2",
    "blis": "#56b4e9",
    "onednn": "#009e73",
    "eigen": "#cc79a7",
    "pytorch": "#7b5ea7",
    "onnxruntime": "#4f9d9d",
    "ggml": "#a05a2c",
    "ggml-f16": "#d1a27f",
}
OTHERS = ("#5b7fa7", "#8a6d3b", "#6f8f3f")


def colour(name):
    if name.startswith("attend"):
        return "#a63c06" if "threads" in name else "#d55e00"
    return COLOURS.get(name) or OTHERS[sum(map(ord, name)) % len(OTHERS)]


plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 11,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.grid": True,
        "grid.color": "#808080",
        "grid.alpha": 0.25,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.hashsalt": "attend",
    }
)


def finish(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    # matplotlib leaves the default text black.
    svg = re.sub(r"(<text[^>]*style=\")", r"\1fill: currentColor; ", svg)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', svg, count=1)


def lines(series, x_label, y_label, ceilings=()):
    """series: {name: [(x, y)]}; ceilings: (name, y), drawn as lines across."""
    figure, axes = plt.subplots(figsize=(8, 4.2))
    for name, points in series.items():
        points = sorted(points)
        axes.plot(
            [p[0] for p in points],
            [p[1] for p in points],
            marker="o",
            markersize=4,
            linewidth=2.5 if name.startswith("attend") else 1.5,
            color=colour(name),
            label=name,
        )
    for name, y in ceilings:
        axes.axhline(y, color=INK, linestyle="--", linewidth=1)
        axes.annotate(name, (0.01, y), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points")
    axes.set_xscale("log", base=2)
    xs = sorted({p[0] for points in series.values() for p in points})
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(figure)


def bars(groups, value_label, log=False):
    """groups: {label: {name: value}}, one cluster of horizontal bars each."""
    count = sum(len(values) for values in groups.values()) + len(groups)
    figure, axes = plt.subplots(figsize=(8, 0.24 * count + 1))
    y, ticks, labels, seen = 0, [], [], set()
    for label, values in groups.items():
        first = y
        for name, value in values.items():
            axes.barh(y, value, height=0.9, color=colour(name), label=None if name in seen else name)
            axes.annotate(f" {value:.3g}", (value, y), va="center", fontsize=9)
            seen.add(name)
            y += 1
        ticks.append((first + y - 1) / 2)
        labels.append(label)
        y += 1
    axes.set_yticks(ticks, labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(value_label)
    axes.legend(loc="center left", bbox_to_anchor=(1.05, 0.5))
    return finish(figure)


def roofline(points, peak, bandwidth):
    """points: {name: [(flops per byte, GFLOP/s)]}."""
    figure, axes = plt.subplots(figsize=(8, 4.2))
    all_x = [x for series in points.values() for x, _ in series]
    low, high = min([*all_x, 0.1]) / 2, max([*all_x, 10]) * 2
    axes.plot([low, peak / bandwidth, high], [low * bandwidth, peak, peak], color=INK, linestyle="--", linewidth=1)
    axes.annotate(f"FMA peak {peak:.0f} GFLOP/s", (high, peak), va="bottom", ha="right")
    axes.annotate(f"memory {bandwidth:.0f} GB/s", (low * 1.2, low * 1.4 * bandwidth), va="bottom", rotation=35)
    colours = [COLOURS[name] for name in ("openblas", "blis", "onednn", "eigen", "unfused")]
    for (name, series), marker, color in zip(points.items(), "osv^D", colours):
        xs, ys = zip(*series)
        axes.scatter(xs, ys, s=22, label=name, marker=marker, color=color)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("flops per byte that must be moved")
    axes.set_ylabel("GFLOP/s, one thread")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return finish(figure)
