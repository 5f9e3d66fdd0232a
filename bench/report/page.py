"""The report: one HTML page that needs nothing else."""

import pathlib

import jinja2
import plots
import rows as table

HERE = pathlib.Path(__file__).parent

# The rows of the speed-up table: where naive loops are still bearable.
SPEEDUPS = {
    "matmul, 256 x 256 x 256": ("matmul", "256"),
    "softmax, 1024 x 1024, contiguous columns": ("softmax", "1024x1024/contiguous"),
    "softmax, 1024 x 1024, contiguous rows": ("softmax", "1024x1024/strided"),
    "attention, 8 heads, N = 256, D = 64": ("attention", "N:256/D:64/heads:8/full"),
    "attention, the same, causal": ("attention", "N:256/D:64/heads:8/causal"),
    "self-attention of the notebook, 3 x 4": ("self_attention", "notebook_3x4"),
}


def number(context, key):
    return float(context.get(key, "0").split()[0])


def select(all_rows, what, threads=1, dtype="f32"):
    return [r for r in all_rows if r.what == what and r.threads == threads and r.dtype == dtype]


def speedups(all_rows):
    """{task: {who: times as fast as naive}}, naive first, then blocked, ours, the peers."""
    most = max((r.threads for r in all_rows), default=1)
    result = {}
    for title, (what, shape) in SPEEDUPS.items():
        found = [r for r in all_rows if (r.what, r.shape, r.dtype) == (what, shape, "f32")]
        naive = next((r.seconds for r in found if r.who == "naive"), None)
        if naive is None:
            continue
        wanted = [r for r in found if r.threads == 1 or (r.threads == most and what != "self_attention")]
        result[title] = {table.label(r.who, r.threads): naive / r.seconds for r in wanted}
    return result


def against(all_rows, what, parameter, value, keep=lambda row: True, threads=1):
    """{who: [(parameter, value)]} over the shapes of a family."""
    series = {}
    for row in sorted(select(all_rows, what, threads), key=table.rank):
        x = parameter(row)
        if x and keep(row) and row.counter(value):
            series.setdefault(table.label(row.who), []).append((x, row.counter(value)))
    return series


def grid(series, x_label):
    """A plot's values as a table: heads and lines."""
    xs = sorted({x for points in series.values() for x, _ in points})
    lines = [[x, *[dict(points).get(x) for points in series.values()]] for x in xs]
    return {"heads": [x_label, *series], "lines": lines}


def scaling(all_rows):
    """{task: speed-up of all threads over one} of the best instruction set."""
    best = table.best_set(all_rows)
    one = {(r.what, r.dtype, r.shape): r.seconds for r in all_rows if r.who == best and r.threads == 1}
    return {
        f"{r.what} {r.dtype} {r.shape} ({r.threads} threads)": one[r.what, r.dtype, r.shape] / r.seconds
        for r in all_rows
        if r.who == best and r.threads > 1 and one.get((r.what, r.dtype, r.shape), 0) > 1e-4
    }


def overheads(all_rows):
    """Small calls, in nanoseconds."""
    shapes = {("matmul", "8"), ("self_attention", "notebook_3x4"), ("attention", "N:16/D:64/heads:8/full")}
    result = {}
    for row in all_rows:
        if (row.what, row.shape) in shapes and row.threads == 1 and row.dtype == "f32":
            result.setdefault(f"{row.what} {row.shape}", {})[table.label(row.who)] = row.seconds * 1e9
    return result


def matrix_size(row):
    return int(row.shape) if row.shape.isdigit() else None


def softmax_layout(row, layout):
    rows, _, rest = row.shape.partition("x")
    columns, _, found = rest.partition("/")
    return int(rows) if found == layout and int(columns) > 1 and int(rows) * int(columns) <= 1 << 20 else None


def sections(results):
    all_rows = table.read(results)
    context = results["context"]
    peak, memory = number(context, "FMA peak of one core, f32"), number(context, "memcpy on one core")
    peak_line = [(f"FMA peak of one core, {peak:.0f}", peak)] if peak else []
    made = []

    def add(title, text, svg="", tables=()):
        made.append({"title": title, "text": text, "svg": svg, "tables": list(tables)})

    def family(title, text, series, x_label, y_label, ceilings=()):
        if series:
            add(title, text, plots.lines(series, x_label, y_label, ceilings), [grid(series, x_label)])

    gains = speedups(all_rows)
    if gains:
        names = list(dict.fromkeys(name for values in gains.values() for name in values))
        lines = [[title, *[values.get(name) for name in names]] for title, values in gains.items()]
        text = "How many times as fast as three plain loops (naive = 1), f32. One thread unless it says otherwise."
        add("Speed-up", text, plots.bars(gains, "times as fast as naive", log=True),
            [{"heads": ["", *names], "lines": lines}])
    family("Matrix product", "Square f32 matrices, one thread.", against(all_rows, "matmul", matrix_size, "GFLOP/s"),
           "M = N = K", "GFLOP/s", peak_line)
    points = {}
    for row in all_rows:
        if row.threads == 1 and row.dtype == "f32" and row.is_ours and row.who == table.best_set(all_rows):
            if row.counter("GFLOP/s") and row.counter("GB/s"):
                intensity = row.counter("GFLOP/s") / row.counter("GB/s")
                points.setdefault(row.what, []).append((intensity, row.counter("GFLOP/s")))
    if points and peak and memory:
        text = "attend's best instruction set on one thread: arithmetic against the bytes that must be moved at least."
        add("Roofline", text, plots.roofline(points, peak, memory))
    gained = scaling(all_rows)
    if gained:
        add("Threads", "Time on one thread over time on all of them, calls longer than 0.1 ms.",
            plots.bars({"": gained}, "times as fast") if len(gained) <= 24 else "",
            [{"heads": ["", "times as fast"], "lines": [list(item) for item in gained.items()]}])
    beside = results.get("threads", [])
    if beside:
        text = ("The same call on one and on two threads, by turns: median, mean and 99th percentile of two threads over one's."
                " Where others want the cores, two threads should cost no more than one.")
        lines = [[r["beside"], r["call"], r["calls"], r["one"][0] * 1e3, *[two / one for one, two in zip(r["one"], r["two"])]]
                 for r in beside]
        add("Threads beside others", text, "",
            [{"heads": ["beside", "call", "calls", "one thread, ms", "median", "mean", "99 %"], "lines": lines}])
    memcpy = [(f"memcpy from memory, {memory:.0f}", memory)] if memory else []
    for layout, title in (("contiguous", "Softmax, contiguous columns"), ("strided", "Softmax, contiguous rows")):
        family(title, "f32, one thread, in cache: bytes read and written once over time.",
               against(all_rows, "softmax", lambda row, wanted=layout: softmax_layout(row, wanted), "GB/s"),
               "elements in a column", "GB/s", memcpy)
    for mask, title in (("full", "Attention"), ("causal", "Attention, causal")):
        family(title,
               "8 heads, D = 64, f32, one thread; flops of visible pairs alone are counted. oneDNN and Eigen are unfused.",
               against(all_rows, "attention", lambda row: row.parameter("N"), "GFLOP/s",
                       lambda row, wanted=mask: row.shape.endswith("/D:64/heads:8/" + wanted)),
               "N, queries and keys", "GFLOP/s", peak_line)
    calls = overheads(all_rows)
    if calls:
        names = list(dict.fromkeys(name for values in calls.values() for name in values))
        lines = [[title, *[values.get(name) for name in names]] for title, values in calls.items()]
        add("Small calls", "Nanoseconds of calls that have almost nothing to compute, f32, one thread.", "",
            [{"heads": ["ns", *names], "lines": lines}])
    every = [[r.what, r.dtype, r.shape, r.who, r.threads, r.seconds * 1e6,
              *[r.counter(name) for name in ("GFLOP/s", "%peak", "GB/s")]] for r in all_rows]
    heads = ["what", "type", "shape", "who", "threads", "µs", "GFLOP/s", "% of peak", "GB/s"]
    add("Every row", "Medians of the repetitions.", "", [{"heads": heads, "lines": every}])
    return made


def value(x):
    if x is None:
        return ""
    return f"{x:.3g}" if isinstance(x, float) and abs(x) < 1000 else f"{x:.0f}" if isinstance(x, float) else str(x)


def render(results):
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True)
    environment.filters["value"] = value
    hidden = ("json_schema_version", "library_build_type", "caches", "load_avg", "executable")
    context = {key: x for key, x in results["context"].items() if key not in hidden}
    return environment.get_template("page.html").render(
        context=context, sections=sections(results), failures=table.failures(results)
    )


def picture(results):
    """The speed-up plot as a file of its own: ink for a light and a dark ground."""
    gains = speedups(table.read(results))
    if not gains:
        return ""
    svg = plots.bars(gains, "times as fast as naive loops, f32", log=True)
    style = "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"
    end = svg.index(">") + 1
    return svg[:end] + style + svg[end:]
