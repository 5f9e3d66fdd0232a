"""The report's words, from rows that are made up: bench_verdict.py REPORT_SOURCES. Nothing is timed."""

import importlib
import math
import re
import sys

sys.path.insert(0, sys.argv[1])
cpu, quiet, table, verdict = (importlib.import_module(name) for name in ("cpu", "quiet", "rows", "verdict"))

# {task: {shape: {who: how long they take over what ours takes}}}
SHAPES = {
    "matmul": ("64", "256", "512/A_transposed"),
    "softmax": ("1024x1024/contiguous", "64x4096/strided"),
    "attention": ("N:256/D:64/heads:8/full", "N:1024/D:64/heads:8/causal"),
}
OTHERS = {"matmul": ("openblas", "mkl"), "softmax": ("onednn",), "attention": ("onednn", "pytorch")}


def made_up(ratio, spread=0.01, with_python=True):
    """Results in which every other library takes ratio(what, shape, who) times what ours takes."""
    benchmarks = []

    def row(what, shape, who, seconds, threads=1):
        for jitter in (-spread, -spread, 0, spread, spread):
            benchmarks.append({"name": f"{what}/f32/{shape}/{who}/threads:{threads}/real_time", "run_type": "iteration",
                               "real_time": seconds * 1e9 * (1 + jitter), "time_unit": "ns"})

    for what, shapes in SHAPES.items():
        for index, shape in enumerate(shapes):
            ours = 1e-3 * (index + 1)
            row(what, shape, "blocked", 5 * ours)
            row(what, shape, "avx2", ours)
            row(what, shape, "generic", 3 * ours)
            row(what, shape, "avx2", ours / 1.9, threads=2)
            if what == "attention" and with_python:
                row(what, shape, "attend", 1.2 * ours)  # called from Python
            for who in OTHERS[what]:
                base = 1.2 * ours if who in table.PYTHON_PEERS and with_python else ours
                row(what, shape, who, base * ratio(what, shape, who))
    return {"context": {}, "benchmarks": benchmarks}


def figures(text):
    return [float(x) for x in re.findall(r"\d+\.\d+", text)]


def says(sentence, *words):
    missing = [word for word in words if word not in sentence]
    assert not missing, f"{missing} not in: {sentence}"


def loses_everywhere():
    ratios = {("matmul", "openblas"): 0.8, ("matmul", "mkl"): 0.5, ("softmax", "onednn"): 0.9,
              ("attention", "onednn"): 0.7, ("attention", "pytorch"): 0.6}
    product, softmax, attention = verdict.sentences(made_up(lambda what, shape, who: ratios[what, who]))
    for sentence in (product, softmax, attention):
        assert "times as fast" not in sentence and "as fast as" not in sentence, f"claims to be ahead: {sentence}"
        says(sentence, "slower than", "at every one of")
    says(product, "slower than MKL (0.50 of its speed)", "slower than OpenBLAS (0.80 of its speed)", "of 3 shapes",
         "0.50 of MKL's speed")
    says(softmax, "slower than oneDNN (0.90 of its speed)", "of 2 shapes")
    # Against ours called from Python, not against the faster one of C++.
    says(attention, "slower than PyTorch (0.60 of its speed)", "0.60 of PyTorch's speed")


def wins_everywhere():
    for sentence in verdict.sentences(made_up(lambda what, shape, who: 1.5)):
        says(sentence, "1.50 times as fast as", "behind at none")
        assert "slower" not in sentence, sentence


def is_behind_in_one_place():
    def ratio(what, shape, who):
        return 0.8 if (shape, who) == ("256", "mkl") else 1.25

    product, softmax, _ = verdict.sentences(made_up(ratio))
    says(product, "behind the fastest of them at 1 of 3 shapes, most at 256, 0.80 of MKL's speed")
    mean = math.exp((math.log(0.8) + 2 * math.log(1.25)) / 3)
    says(product, f"{mean:.2f} times as fast as MKL", "1.25 times as fast as OpenBLAS")
    says(softmax, "behind at none of 2 shapes")


def noise_is_no_defeat():
    for sentence in verdict.sentences(made_up(lambda what, shape, who: 0.95, spread=0.5)):
        says(sentence, "behind at none")
        assert "slower" not in sentence, sentence
    for spread, expected in ((0.5, True), (0.01, False)):
        rows = table.read(made_up(lambda what, shape, who: 1, spread))
        assert rows and all(row.is_noisy is expected for row in rows), spread
    assert table.quartiles([1, 1.2, 1.3, 1.4, 9]) == (1.2, 1.4)


def without_others():
    results = made_up(lambda what, shape, who: 1)
    results["benchmarks"] = [b for b in results["benchmarks"] if not re.search("openblas|mkl|onednn|pytorch", b["name"])]
    for sentence in verdict.sentences(results):
        says(sentence, "no other library was measured", "--peers", "5.0 times as fast as blocked C++")
    assert verdict.sentences({"context": {}, "benchmarks": []})[0] == "Matrix product: not measured."


def a_busy_machine():
    begin = {"load": 3.0, "runnable": 4}
    calm = quiet.summary([(0.0, 0.0), (0.05, 0.01)], [100, 99], begin)
    assert not calm["busy"] and not calm["sentences"], calm
    busy = quiet.summary([(0.0, 0.0), (1.4, 0.2)], [100, 99], begin)
    says(busy["sentences"][0], "1 of 2 groups", "1.4 CPUs", "0.2 taken", "load was 3.0", "4 threads")
    assert busy["busy"]
    once = quiet.summary([(1.4, 0.2)] + [(0.0, 0.0)] * 29, [100], begin)
    says(once["sentences"][0], "1 of 30 groups")
    assert not once["busy"], "one group of thirty is told, and spoils no run"
    stolen = quiet.summary([(0.0, 0.5)], [100], begin)
    assert stolen["busy"], "time taken by the hypervisor is no quiet machine"
    clock = quiet.summary([(0.0, 0.0)], [100, 70], begin)
    says(clock["sentences"][0], "clock changed", "between 70 and 100")
    results = made_up(lambda what, shape, who: 1)
    name = "matmul/f32/64/avx2/threads:2/real_time"
    results["benchmarks"] = quiet.without_many(results["benchmarks"], [name])
    assert not [r for r in table.read(results) if (r.what, r.shape, r.threads) == ("matmul", "64", 2)]
    assert (name, "not measured: machine busy") in table.failures(results)
    twelve = {"name": "matmul/f32/64/avx2/threads:12/real_time"}
    assert quiet.without_many([twelve], [twelve["name"]])[0]["error_message"] == quiet.NOT_MEASURED, "12 threads are several"
    # Half of the time of a row on one thread went to others: its CPU time counts, and its rates follow.
    for threads, milliseconds, rate in ((1, 5, 40), (2, 10, 20)):
        row = {"name": f"matmul/f32/64/avx2/threads:{threads}/real_time", "real_time": 10, "cpu_time": 5, "time_unit": "ms",
               "GFLOP/s": 20}
        read, = table.read({"context": {}, "benchmarks": [row]})
        assert math.isclose(read.seconds, milliseconds * 1e-3) and math.isclose(read.counter("GFLOP/s"), rate), read
    says(table.as_csv(results), "matmul,f32,64,avx2,2,", "not measured: machine busy")


def the_generation_of_a_cpu():
    def said(vendor, family, model):
        lines = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n"
        return cpu.with_generation("AMD EPYC", f"processor\t: 0\n{lines}\nprocessor\t: 1\n{lines}")

    assert said("AuthenticAMD", 25, 1) == "AMD EPYC (Zen 3)"
    assert said("AuthenticAMD", 25, 17) == "AMD EPYC (Zen 4)"
    assert said("GenuineIntel", 6, 143) == "AMD EPYC (Sapphire Rapids)"
    assert said("GenuineIntel", 6, 1) == "AMD EPYC (family 6, model 1)"
    assert cpu.with_generation("Cortex", "processor\t: 0\nCPU part\t: 0xd0c\n") == "Cortex"


for test in (loses_everywhere, wins_everywhere, is_behind_in_one_place, noise_is_no_defeat, without_others, a_busy_machine,
             the_generation_of_a_cpu):
    test()
    print("ok", test.__name__)
