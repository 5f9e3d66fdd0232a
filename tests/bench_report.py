"""A tiny run of the benchmarks makes a report in which nothing is missing: bench_report.py REPORT_SOURCES PROGRAMS."""

import csv
import html
import html.parser
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import xml.dom.minidom

SECTIONS = ["Machine and versions", "Speed-up", "Matrix product", "Matrix product, four layouts", "Matrix product, thin",
            "Roofline", "Threads beside others", "Masks and options", "Scaling with length, time", "Scaling with length, memory",
            "Softmax, contiguous columns", "Softmax, contiguous rows", "Attention", "Attention, causal", "Gradients of attention",
            "Narrow types", "Decode of a batch", "Ragged batches", "New keys and values", "Small calls", "Every row"]
ROWS = (r"matmul/f32/(8|16|256|512/B_transposed|4x1024x1024)/|options/f32/N:1024/D:64/(plain|mask)/|length/f32/N:(512|1024)/|softmax/f32/(64x4096|1024x1024)/|^self_attention/f32/"
        r"|^attention/f32/N:(16|256)/D:64/heads:8/|decode/f32/keys:1024/|^backward/f32/N:512/D:64/heads:1/full/|^threads_beside_others$"
        r"|^types/\w+/(linear/4096x4096/items:1|softmax/strided)/|^ragged/(f32/(sentences|latent/keys:4096/H:1/)|i8/decode/H:32/Hkv:8/page:16)"
        r"|^serving/(bf16|bf16_to_bf16)/append/tokens:512/H:8/|^mpi_ranks$")


class Page(html.parser.HTMLParser):
    """Headings, links out of the page, and whether every element is closed."""

    VOID = {"meta", "link", "br", "img", "path", "use"}

    def __init__(self):
        super().__init__()
        self.open, self.headings, self.outside, self.cells, self.plots = [], [], [], 0, 0

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")
        self.cells += tag == "td"
        self.plots += tag == "svg"
        for name, text in attributes:
            if name in ("src", "href", "xlink:href") and text and not text.startswith("#"):
                self.outside.append(text)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data


def shows_whose_figures(results, command, out):
    """The picture says CPU, date, attend's version and those of the other libraries, of which one is made up here."""
    ours = next(r["name"] for r in results["benchmarks"] if re.match(r"matmul/f32/256/(?!naive|blocked)[^/]+/threads:1/", r["name"]))
    theirs = [{**r, "name": re.sub("/256/[^/]+/", "/256/openblas/", ours)} for r in results["benchmarks"] if r["name"] == ours]
    context = {k: v for k, v in results["context"].items() if not k.startswith(("peer: openblas", "left out: openblas"))}
    context["peer: openblas"] = "OpenBLAS 9.8.7; kernels: Some"
    others = [r for r in results["benchmarks"] if "/openblas/" not in r["name"]]
    (out / "report.json").write_text(json.dumps({**results, "context": context, "benchmarks": others + theirs}))
    subprocess.run([*command, "--page-only"], check=True, capture_output=True)
    text = html.unescape((out / "speedup.svg").read_text())
    said = [results["context"][key] for key in ("CPU", "attend", "attend's revision")] + [results["context"]["date"][:10]]
    missing = [words for words in [*said, "OpenBLAS 9.8.7", ">OpenBLAS<", ">naive loops<"] if words not in text]
    assert not missing, f"{missing} not in the picture"


def main():
    sources, programs = map(pathlib.Path, sys.argv[1:])
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        print("skipped: no", *missing)
        sys.exit(1 if os.environ.get("ATTEND_REQUIRE_REPORT") else 77)
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory)
        command = [sys.executable, "-B", sources / "run.py", "--programs", programs, "--out", out]
        run = subprocess.run([*command, "--filter", ROWS, "--min-time", "0.001", "--repetitions", "2",
                              "--threads-time", "0.1", "--mpi-tokens", "1024"],
                             capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert " s left " in run.stdout, "no progress shown"
        results = json.loads((out / "report.json").read_text())
        busy = "not measured: machine busy"
        failed = [row for row in results["benchmarks"] if row.get("error_occurred")]
        # A peer may have reference code alone, and a busy machine no figures for threads; ours fails nowhere.
        assert all("threads:1/" not in row["name"] for row in failed if row["error_message"] == busy), failed
        assert not [row for row in failed if row["error_message"] != busy and "/onednn/" not in row["name"]], failed
        assert results["machine"]["sentences"] or not [row for row in failed if row["error_message"] == busy]
        assert {"naive", "blocked"} <= {row["name"].split("/")[-3] for row in results["benchmarks"]}
        if "threads" in results:
            assert len({row["beside"] for row in results["threads"]}) >= 3, "neighbours are missing"
            assert all(min(row["one"] + row["two"]) > 0 for row in results["threads"])
        else:
            assert results["threads_not_measured"] == busy
        if not (programs / "attend_bench_mpi").exists() or shutil.which("mpirun") is None:
            assert "mpi" not in results
        elif "mpi" not in results:
            assert results["mpi_not_measured"] == busy
        else:
            assert [row["ranks"] for row in results["mpi"]] == [1, 2, 4] and all(row["prefill"] > 0 for row in results["mpi"])
        assert all(row["real_time"] > 0 for row in results["benchmarks"] if row not in failed)
        lines = list(csv.DictReader((out / "report.csv").open()))
        measured = [line for line in lines if not line["not measured"]]
        assert len(lines) > 60 and len(measured) > 40, (len(lines), len(measured))
        assert all(float(r["first quartile"]) <= float(r["seconds"]) <= float(r["third quartile"]) for r in measured)
        assert any(float(line["scratch bytes"]) > 1000 for line in measured if line["scratch bytes"])
        page = Page()
        page.feed((out / "report.html").read_text())
        assert not page.open, f"not closed: {page.open}"
        absent = [title for title in SECTIONS if title not in page.headings]
        assert not absent, f"sections {absent} are missing from {page.headings}"
        assert not page.outside, f"not self-contained: {page.outside}"
        assert page.plots >= 10 and page.cells > 300, (page.plots, page.cells)
        verdict = re.search(r'<div class="verdict">(.*?)</div>', (out / "report.html").read_text(), re.DOTALL)[1]
        assert all(f"<p>{task}: " in verdict for task in ("Matrix product", "Softmax", "Attention")), verdict
        xml.dom.minidom.parse(str(out / "speedup.svg"))
        shows_whose_figures(results, command, out)
        # That of --against, whose rows may have no figures.
        row = {"name": "sgemm/64", "microseconds": 9.5, "ratio": 0.91, "control": 1.0, "spread": 0.02, "verdict": "MISSES"}
        refused = {"name": "merge/64", "verdict": "left out", "why": "A: has no attention_merge"}
        against = {"old": "abc1234", "isa": "avx2", "threads": 1, "mark": 0.98, "rows": [refused, row]}
        (out / "against.json").write_text(json.dumps(against))
        subprocess.run([sys.executable, "-B", sources / "page.py", out / "against.json", out / "against.html"], check=True)
        text = (out / "against.html").read_text()
        assert "1 of 2 rows are slower than abc1234" in text and "most sgemm/64, 0.910 of its speed" in text, text[:3000]
        assert "1 rows say nothing" in text and text.index("sgemm/64</td>") < text.index("merge/64</td>")
        # The page can be made again from the JSON alone.
        (out / "report.html").unlink()
        subprocess.run([*command, "--page-only"], check=True, capture_output=True)
        assert (out / "report.html").stat().st_size > 10000
    print(f"{len(page.headings)} sections, {page.plots} plots, {page.cells} cells")


main()
