"""What the rows say, in three sentences: of whom attend is ahead and by how much, and where it is behind."""

import math
import statistics

import rows as table

TASKS = {
    "Matrix product": ("matmul",),
    "Softmax": ("softmax",),
    "Attention": ("attention", "decode"),
}
NAMES = {
    "openblas": "OpenBLAS", "blis": "BLIS", "mkl": "MKL", "onednn": "oneDNN", "eigen": "Eigen", "libxsmm": "libxsmm",
    "pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "ggml": "ggml",
}
# Nobody's library, or, with K and V in f16, another task.
NOT_COMPARED = {"naive", "blocked", "unfused", "ggml-f16", table.FROM_PYTHON}
# What is called as fast as another, for geometric means and at the least for one shape.
EVEN = 0.02


def name_of(who):
    return NAMES.get(who, who)


def ratios(all_rows, kinds):
    """{shape: {who: (their time over ours, what noise may make of it)}}, f32 on one thread. Who is called from Python is
    compared with ours called from there in turns."""
    rows = [r for r in all_rows if r.what in kinds and r.dtype == "f32" and r.threads == 1]
    best = table.best_set(all_rows)
    found = {}
    for shape in dict.fromkeys((r.what, r.shape) for r in rows):
        same = {r.who: r for r in rows if (r.what, r.shape) == shape}
        for who, theirs in same.items():
            if who in NOT_COMPARED or who in table.INSTRUCTION_SETS:
                continue
            ours = same.get(best)
            if who in table.PYTHON_PEERS:
                ours = same.get(table.FROM_PYTHON, ours)
            if ours is not None:
                noise = max(EVEN, (ours.spread + theirs.spread) / 2)
                found.setdefault(shape, {})[who] = (theirs.seconds / ours.seconds, noise)
    return found


def listed(parts):
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def against_each(by_who):
    """Clauses for the geometric mean over the shapes of each, the strongest first. What its noise may make of it is no
    difference."""
    behind, even, ahead = [], [], []
    means = {who: statistics.geometric_mean(ratio for ratio, _ in values) for who, values in by_who.items()}
    for who, values in sorted(by_who.items(), key=lambda item: means[item[0]]):
        ratio, name = means[who], name_of(who)
        noise = max(EVEN, statistics.mean(noise for _, noise in values) / math.sqrt(len(values)))
        if ratio < 1 - noise:
            behind.append(f"slower than {name} ({ratio:.2f} of its speed)")
        elif ratio > 1 + noise:
            ahead.append(f"{ratio:.2f} times as fast as {name}")
        else:
            even.append(name)
    return behind + ([f"as fast as {listed(even)}"] if even else []) + ahead


def sentence(task, all_rows, kinds):
    found = ratios(all_rows, kinds)
    if not found:
        return without_peers(task, all_rows, kinds)
    by_who, closest = {}, []
    for (what, shape), theirs in found.items():
        for who, measured in theirs.items():
            by_who.setdefault(who, []).append(measured)
        who, (ratio, noise) = min(theirs.items(), key=lambda item: item[1][0])
        closest.append((ratio, noise, shape if what in kinds[:1] else f"{what} {shape}", name_of(who)))
    lost = [entry for entry in closest if entry[0] < 1 - entry[1]]
    worst, _, where, whose = min(lost or closest)
    text = f"{task}: attend is {listed(against_each(by_who))}"
    if lost:
        count = "every one" if len(lost) == len(closest) else f"{len(lost)}"
        text += f"; behind the fastest of them at {count} of {len(closest)} shapes, most at {where}, "
        text += f"{worst:.2f} of {whose}'s speed"
    else:
        text += f"; behind at none of {len(closest)} shapes, closest at {where}, {worst:.2f} times {whose}'s speed"
        text += ", which is within the noise" if worst < 1 else ""
    return text + "."


def without_peers(task, all_rows, kinds):
    best = table.best_set(all_rows)
    rows = {(r.what, r.shape, r.who): r for r in all_rows if r.what in kinds and r.dtype == "f32" and r.threads == 1}
    gains = [r.seconds / rows[what, shape, best].seconds for (what, shape, who), r in rows.items()
             if who == "blocked" and (what, shape, best) in rows]
    if not gains:
        return f"{task}: not measured."
    return (f"{task}: no other library was measured (./run bench --peers brings them); "
            f"{statistics.geometric_mean(gains):.1f} times as fast as "
            f"blocked C++ of one thread over {len(gains)} shapes.")


def sentences(results):
    all_rows = table.read(results)
    return [sentence(task, all_rows, kinds) for task, kinds in TASKS.items()]


def scope():
    """What holds for all three."""
    return ("f32 on one thread, by its CPU time; geometric means over the shapes that both measured; a difference within the quartiles, or "
            f"within {EVEN:.0%}, is none.")
