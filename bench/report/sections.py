"""The report's sections, one function for each kind of question: {title, text, svg, tables}. Values are (median, first
quartile, third quartile), or plain numbers and text; None is an empty cell."""

import plots
import quiet
import rows as table

# The rows of the speed-up table: where naive loops are still bearable.
SPEEDUPS = {
    "matmul, 256 x 256 x 256": ("matmul", "256"),
    "softmax, 1024 x 1024, contiguous columns": ("softmax", "1024x1024/contiguous"),
    "softmax, 1024 x 1024, contiguous rows": ("softmax", "1024x1024/strided"),
    "attention, 8 heads, N = 256, D = 64": ("attention", "N:256/D:64/heads:8/full"),
    "attention, the same, causal": ("attention", "N:256/D:64/heads:8/causal"),
    "self-attention of the notebook, 3 x 4": ("self_attention", "notebook_3x4"),
}
# Those of the picture that stands alone, which is of one thread: some libraries' products are measured on no more.
PICTURE = {
    "matrix product\n256 x 256 x 256": "matmul, 256 x 256 x 256",
    "softmax\n1024 columns of 1024": "softmax, 1024 x 1024, contiguous columns",
    "attention\n8 heads, N = 256, D = 64": "attention, 8 heads, N = 256, D = 64",
}
# Not in it: attention of our own products, and of keys and values in another type.
NOT_PICTURED = ("unfused", "ggml-f16")
LAYOUTS = {
    "A and B as they are": "512",
    "A transposed": "512/A_transposed",
    "B transposed": "512/B_transposed",
    "both transposed": "512/both_transposed",
}
THIN = {
    "4096 x 4096 x 1": "4096x4096x1",
    "4096 x 4096 x 4": "4096x4096x4",
    "4096 x 4096 x 16": "4096x4096x16",
    "4 x 1024 x 1024": "4x1024x1024",
    "1024 x 16 x 1024": "1024x16x1024",
}
SMALL = {
    "matmul, 8 x 8 x 8": ("matmul", "8"),
    "matmul, 16 x 16 x 16": ("matmul", "16"),
    "self-attention of the notebook": ("self_attention", "notebook_3x4"),
    "attention, 8 heads, N = 16, D = 64": ("attention", "N:16/D:64/heads:8/full"),
}


def scaled(row, factor):
    """seconds -> factor / seconds, quartiles in order."""
    return tuple(factor / s for s in (row.seconds, row.quartiles[1], row.quartiles[0]))


def of_counter(row, name):
    """A rate's median and quartiles, which are those of the time."""
    rate = row.counter(name)
    return tuple(rate * row.seconds / s for s in (row.seconds, row.quartiles[1], row.quartiles[0])) if rate else None


def times(row, unit):
    return tuple(s / unit for s in (row.seconds, *row.quartiles))


def select(all_rows, what, threads=1, dtype="f32"):
    return [r for r in all_rows if r.what == what and r.threads == threads and r.dtype == dtype]


def grid(series, x_label):
    """A plot's values as a table: heads and lines."""
    xs = list(dict.fromkeys(x for points in series.values() for x, _ in points))
    xs = xs if any(isinstance(x, str) for x in xs) else sorted(xs)
    return {"heads": [x_label, *series], "lines": [[x, *[dict(p).get(x) for p in series.values()]] for x in xs]}


def table_of(groups, corner=""):
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    return {"heads": [corner, *names], "lines": [[label, *[v.get(name) for name in names]] for label, v in groups.items()]}


def speedups(all_rows):
    """{task: {who: times as fast as naive}}, naive first, then blocked, ours, the peers."""
    most = max((r.threads for r in all_rows), default=1)
    result = {}
    for title, (what, shape) in SPEEDUPS.items():
        found = [r for r in all_rows if (r.what, r.shape, r.dtype) == (what, shape, "f32")]
        naive = next((r.seconds for r in found if r.who == "naive"), None)
        if naive is not None:
            wanted = [r for r in found if r.threads == 1 or (r.threads == most and what != "self_attention")]
            result[title] = {table.label(r.who, r.threads): scaled(r, naive) for r in wanted}
    return result


def pictured(all_rows):
    """The speed-ups of the picture: {title: {label: times as fast as naive}}."""
    gains = speedups([r for r in all_rows if r.threads == 1 and r.who not in NOT_PICTURED])
    return {title: gains[task] for title, task in PICTURE.items() if task in gains}


def grouped(all_rows, shapes, value):
    """{title: {label: value(row)}} of f32 rows on one thread; `shapes` has {title: (what, shape)}."""
    result = {}
    for title, (what, shape) in shapes.items():
        found = {table.label(r.who): value(r) for r in select(all_rows, what) if r.shape == shape}
        if any(found.values()):
            result[title] = {name: v for name, v in found.items() if v}
    return result


def by_task(all_rows, what, name, value):
    """{task: {name(row): value(row)}} of rows on one thread: what memory does first, then type by type."""
    found = {}
    for row in sorted(all_rows, key=table.type_rank):
        if row.what == what and row.threads == 1 and (v := value(row)):
            found.setdefault(table.task_of(row.shape), {})[name(row)] = v
    return found


def series(all_rows, what, parameter, value, keep=lambda row: True):
    """{label: [(parameter, value)]} over the shapes of a family, f32 on one thread."""
    found = {}
    for row in sorted(select(all_rows, what), key=table.rank):
        x, y = parameter(row), value(row)
        if x and y and keep(row):
            found.setdefault(table.label(row.who), []).append((x, y))
    return found


def matrix_size(row):
    return int(row.shape) if row.shape.isdigit() else None


def softmax_layout(row, layout):
    rows, _, rest = row.shape.partition("x")
    columns, _, found = rest.partition("/")
    return int(rows) if found == layout and int(columns) > 1 and int(rows) * int(columns) <= 1 << 20 else None


def gflops(row):
    return of_counter(row, "GFLOP/s")


def gigabytes(row):
    return of_counter(row, "GB/s")


class Builder:
    """Sections in the order in which they are added; what has no rows is no section."""

    def __init__(self, results):
        self.results, self.rows, self.made = results, table.read(results), []
        context = results["context"]
        self.peak, self.memory = (float(context.get(key, "0").split()[0])
                                  for key in ("FMA peak of one core, f32", "memcpy on one core"))
        best = table.best_set(self.rows)
        self.best = table.label(best) if best else None
        self.peak_line = [(f"FMA peak of one core, {self.peak:.0f}", self.peak)] if self.peak else []

    def add(self, title, text, svg="", tables=()):
        self.made.append({"title": title, "text": text, "svg": svg, "tables": list(tables)})

    def family(self, title, text, found, x_label, y_label, ceilings=(), log=False):
        if found:
            self.add(title, text, plots.lines(found, x_label, y_label, ceilings, log, self.best), [grid(found, x_label)])

    def clusters(self, title, text, groups, value_label, log=False, named=False):
        if groups:
            self.add(title, text, plots.bars(groups, value_label, log, self.best, named), [table_of(groups)])

    def overview(self):
        self.clusters("Speed-up", "How many times as fast as three plain loops (naive = 1), f32. One thread unless it says "
                      "otherwise.", speedups(self.rows), "times as fast as naive", log=True)

    def products(self):
        self.family("Matrix product", "Square f32 matrices, one thread.", series(self.rows, "matmul", matrix_size, gflops),
                    "M = N = K", "GFLOP/s", self.peak_line)
        shapes = {title: ("matmul", shape) for title, shape in LAYOUTS.items()}
        self.clusters("Matrix product, four layouts", "512 x 512 x 512, f32, one thread: contiguous columns or, transposed, "
                      "contiguous rows. Nothing is copied by the caller.",
                      {t: {n: v for n, v in g.items() if n not in ("naive", "blocked")}
                       for t, g in grouped(self.rows, shapes, gflops).items()}, "GFLOP/s")
        shapes = {title: ("matmul", shape) for title, shape in THIN.items()}
        self.clusters("Matrix product, thin", "M x K x N, f32, one thread: bytes of A, B and C once over time, since reading "
                      f"the large operand is what bounds these (memcpy has {self.memory:.0f} GB/s from memory).",
                      {t: {n: v for n, v in g.items() if n not in ("naive", "blocked")}
                       for t, g in grouped(self.rows, shapes, gigabytes).items()}, "GB/s")

    def softmaxes(self):
        memcpy = [(f"memcpy from memory, {self.memory:.0f}", self.memory)] if self.memory else []
        for layout, title in (("contiguous", "Softmax, contiguous columns"), ("strided", "Softmax, contiguous rows")):
            self.family(title, "f32, one thread, in cache: bytes read and written once over time.",
                        series(self.rows, "softmax", lambda row, wanted=layout: softmax_layout(row, wanted), gigabytes),
                        "elements in a column", "GB/s", memcpy)

    def attentions(self):
        for mask, title in (("full", "Attention"), ("causal", "Attention, causal")):
            self.family(title, "8 heads, D = 64, f32, one thread; flops of visible pairs alone are counted. oneDNN and Eigen "
                        "are unfused. PyTorch, ONNX Runtime and ggml are called from Python, and so is ours beside them.",
                        series(self.rows, "attention", lambda row: row.parameter("N"), gflops,
                               lambda row, wanted=mask: row.shape.endswith("/D:64/heads:8/" + wanted)),
                        "N, queries and keys", "GFLOP/s", self.peak_line)
        heads = {f"D = {d}, {mask}": ("attention", f"N:1024/D:{d}/heads:8/{mask}")
                 for d in (64, 128) for mask in ("full", "causal")}
        self.clusters("Attention, head sizes", "8 heads, N = 1024, f32, one thread.",
                      {t: {n: v for n, v in g.items() if n != "blocked"} for t, g in grouped(self.rows, heads, gflops).items()},
                      "GFLOP/s")
        shapes = dict.fromkeys(r.shape for r in select(self.rows, "decode"))
        decode = grouped(self.rows, {table.spelled(s): ("decode", s) for s in shapes}, gigabytes)
        self.clusters("Decode", "One query against a cache of keys and values, D = 128, f32, one thread; grouped heads share "
                      "the keys of one. Bytes of the cache once over time.", decode, "GB/s")
        self.options()

    def options(self):
        plain = {r.shape.rpartition("/")[0]: r for r in select(self.rows, "options") if r.shape.endswith("/plain")}
        found = {}
        order = ("plain", "mask", "bias", "softcap", "causal")  # and what else there is
        rank = {option: index for index, option in enumerate(order)}
        for row in sorted(select(self.rows, "options"), key=lambda r: rank.get(r.shape.rpartition("/")[2], len(rank))):
            size, _, option = row.shape.rpartition("/")
            if size in plain and row.who == plain[size].who:
                ratio = tuple(s / plain[size].seconds for s in (row.seconds, *row.quartiles))
                found.setdefault(f"{option}, N = {row.parameter('N')}", {})[table.label(row.who)] = ratio
        self.clusters("Masks and options", "Time beside the plain call, one head, D = 64, f32, one thread: a bool mask that hides "
                      "a fifth, an additive bias, softcap, causal, and a causal window of 256.", found, "times the plain call")

    def gradients(self):
        for mask, title in (("full", "Gradients of attention"), ("causal", "Gradients of attention, causal")):
            found = {f"N = {n}, D = {d}": ("backward", f"N:{n}/D:{d}/heads:1/{mask}")
                     for d in (64, 128) for n in (512, 1024, 4096)}
            self.clusters(title, "d_q, d_k and d_v from d_out, one head, f32, one thread; the five products over visible pairs are "
                          "counted. PyTorch is called from Python, and so is ours beside it.",
                          grouped(self.rows, found, gflops), "GFLOP/s")

    def types(self):
        f32 = {r.shape: r for r in select(self.rows, "types")}
        found = {}
        for row in sorted(self.rows, key=table.type_rank):
            if row.what == "types" and row.dtype != "f32" and row.shape in f32:
                found.setdefault(table.spelled(row.shape), {})[row.dtype] = scaled(row, f32[row.shape].seconds)
        self.clusters("Narrow types", "How many times as fast as the same work in f32, one thread: as fast where arithmetic rules, "
                      "since it is that of f32, and in proportion to the bytes where memory does. bf16_dot uses the CPU's dot "
                      "products, which ATTEND_NATIVE_DOT allows; i8_to_i32 is exact.", found, "times as fast as f32", named=True)

        if beside := self.results.get("types_beside_pytorch"):
            heads = ["", "type", "attend, ms", "PyTorch, ms", "PyTorch / attend"]
            self.add("Narrow types beside PyTorch", "By turns in one process, one thread; also the projections and the attention of a layer as "
                     "Llama has it.", "", [{"heads": heads, "lines": beside}])

    def serving(self):
        decode = by_task(self.rows, "ragged", lambda r: "read loop" if r.who == "read" else
                         f"{r.dtype}, {table.variant_of(r.shape)}", gigabytes)
        self.clusters("Decode of a batch", "A token of each of 32 sequences of 17 to 4096 keys, D = 128, one thread: packed, and in "
                      "pages of 16 and 64 keys. Bytes of the caches once over time, beside a loop that reads as many as those of f32.",
                      {table.spelled(task): values for task, values in decode.items()}, "GB/s", named=True)
        lines = [[table.spelled(table.task_of(r.shape)), r.dtype, table.variant_of(r.shape), r.threads, times(r, 1e-3),
                  gflops(r), r.counter("%peak")] for r in self.rows if r.what == "ragged" and gflops(r)]
        if lines:
            heads = ["", "type", "", "threads", "ms", "GFLOP/s", "% of peak"]
            self.add("Ragged batches", "Sentences of 4 to 233 tokens packed, each alone, and padded; many short sequences beside one "
                     "call of as many operations; a prefix that sequences share, read by each of them or once; multi-head latent "
                     "attention. Of padded sentences only the pairs that exist count.", "", [{"heads": heads, "lines": lines}])
        copies = by_task(self.rows, "serving", lambda r: f"memcpy, {r.dtype}" if r.who == "memcpy" else
                         f"{r.dtype.replace('_', ' ')}, {table.variant_of(r.shape)}", gigabytes)
        self.clusters("New keys and values", "Rotary embedding, and appending to caches with it, one thread: bytes read and written once "
                      "over time, beside memcpy of as many bytes as those of bf16 (of rotary: of the type).",
                      {table.spelled(task): values for task, values in copies.items()}, "GB/s", named=True)

    def ranks(self):
        if runs := self.results.get("mpi"):
            one = runs[0]
            lines = [[r["ranks"], 1e3 * r["prefill"], one["prefill"] / r["prefill"], 1e3 * r["processor"], 1e3 * r["decode"],
                      one["decode"] / r["decode"], 1e6 * r["agreement"]] for r in runs]
            heads = ["ranks", "prefill, ms", "times as fast", "of processors, ms", "decode, ms", "times as fast", "agreement, µs"]
            text = (f"attend_mpi_attention of {one['tokens']} tokens, causal, and attend_mpi_decode over {one['cache']} keys, 8 query heads on "
                    "2 of 128 features in bf16, with equal bits; each rank has one thread. Beyond the CPUs of this machine more ranks only "
                    "show what they cost. docs/beyond-one-machine.md models many machines.")
            self.add("Across MPI ranks", text, "", [{"heads": heads, "lines": lines}])
        elif why := self.results.get("mpi_not_measured"):
            self.add("Across MPI ranks", f"This time {why}.")

    def lengths(self):
        per_call = series(self.rows, "length", lambda r: r.parameter("N"), lambda r: times(r, 1e-3))
        self.family("Scaling with length, time", "One head, D = 64, f32, one thread: the time grows with N squared, for "
                    "everybody; \"unfused\" is the same by two products and a softmax.", per_call, "N", "ms", log=True)
        scratch = series(self.rows, "length", lambda r: r.parameter("N"),
                         lambda r: (r.counter("scratch") / 1e6,) * 3 if r.counter("scratch") else None)
        self.family("Scaling with length, memory", "What a call needs beside its operands: all scores where they are stored, a "
                    "fixed amount a thread here.", scratch, "N", "MB", log=True)

    def threads(self):
        best = table.best_set(self.rows)
        one = {(r.what, r.dtype, r.shape): r for r in self.rows if r.who == best and r.threads == 1}
        gained = {}
        for r in self.rows:
            alone = one.get((r.what, r.dtype, r.shape))
            if r.who == best and r.threads > 1 and alone and alone.seconds > 1e-4:
                name = f"{r.what} {r.shape}" + ("" if r.dtype == "f32" else f" {r.dtype}")
                gained[name] = {table.label(r.who, r.threads): scaled(r, alone.seconds)}
        busy = [name for name, why in table.failures(self.results) if why == quiet.NOT_MEASURED]
        text = "Time on one thread over time on all of them, calls longer than 0.1 ms."
        if busy:
            text += f" {len(busy)} rows on several threads: {quiet.NOT_MEASURED}."
        if gained:
            self.add("Threads", text, plots.bars(gained, "times as fast") if len(gained) <= 24 else "", [table_of(gained)])
        elif busy:
            self.add("Threads", text)
        beside = self.results.get("threads", [])
        text = ("The same call on one and on two threads, by turns: median, mean and 99th percentile of two threads over "
                "one's. Where others want the cores, two threads should cost no more than one.")
        if beside:
            lines = [[r["beside"], r["call"], r["calls"], r["one"][0] * 1e3,
                      *[two / one for one, two in zip(r["one"], r["two"])]] for r in beside]
            heads = ["beside", "call", "calls", "one thread, ms", "median", "mean", "99 %"]
            self.add("Threads beside others", text, "", [{"heads": heads, "lines": lines}])
        elif why := self.results.get("threads_not_measured"):
            self.add("Threads beside others", f"{text} This time {why}.")

    def roofline(self):
        names = {"matmul": "matrix product", "attention": "attention", "decode": "decode", "softmax": "softmax"}
        points = {}
        for row in self.rows:
            rate, moved = gflops(row), row.counter("GB/s")
            if row.what == "softmax" and row.counter("Gelem/s"):
                # Maximum, difference, scale, an exponential of some ten operations, sum: about 15 an element.
                rate = tuple(15 * x for x in of_counter(row, "Gelem/s"))
            if row.what == "decode" and moved:
                # Scores and output: two multiply-adds for each element of K and V and each query head that shares it.
                rate = tuple(x * row.parameter("heads") / row.parameter("kv") / 2 for x in gigabytes(row))
            if row.threads == 1 and row.dtype == "f32" and row.what in names and rate and moved and row.who not in (
                    "naive", "blocked", *(set(table.INSTRUCTION_SETS) - {table.best_set(self.rows)})):
                points.setdefault((names[row.what], table.label(row.who)), []).append((rate[0] / moved, rate))
        if points and self.peak and self.memory:
            self.add("Roofline", "Every row on one thread: arithmetic against the bytes that must be moved at least. The lines are "
                     "what this machine did in the same minute; operands that fit a cache may lie above the slope.",
                     plots.roofline(points, self.peak, self.memory))

    def small(self):
        found = grouped(self.rows, SMALL, lambda row: times(row, 1e-9))
        if found:
            self.add("Small calls", "Nanoseconds of calls that have almost nothing to compute, f32, one thread.", "",
                     [table_of(found, "ns")])

    def every(self):
        lines = [[r.what, r.dtype, r.shape, r.who, r.threads, times(r, 1e-6), 100 * r.spread,
                  *[r.counter(name) for name in ("GFLOP/s", "%peak", "GB/s")]] for r in self.rows]
        heads = ["what", "type", "shape", "who", "threads", "µs", "quartiles, %", "GFLOP/s", "% of peak", "GB/s"]
        self.add("Every row", "Medians of the repetitions, and how far apart their quartiles lie. Of rows on one thread the CPU time of that "
                 "thread, which other work does not add to; of the others the time that passed.", "",
                 [{"heads": heads, "lines": lines}])


def sections(results):
    builder = Builder(results)
    for part in (builder.overview, builder.products, builder.softmaxes, builder.attentions, builder.gradients, builder.types,
                 builder.serving, builder.threads, builder.ranks, builder.lengths, builder.roofline, builder.small, builder.every):
        part()
    return builder.made
