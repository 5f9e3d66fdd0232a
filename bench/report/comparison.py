"""What changed since an earlier report.json, beyond the noise: Google Benchmark's own Mann-Whitney test of the repetitions."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import rows as table

TOOL = pathlib.Path("/usr/share/benchmark/compare.py")
SIGNIFICANT = 0.05


def changes(old, new):
    """{old, new: revisions; rows: how many both have; changed: [[name, old seconds, new seconds, ratio, p]]}, what became
    slower first."""
    if not TOOL.exists():
        sys.exit("Google Benchmark's compare.py is missing (Debian: libbenchmark-tools, python3-scipy)")
    with tempfile.TemporaryDirectory() as directory:
        files = [pathlib.Path(directory) / name for name in ("old.json", "new.json", "difference.json")]
        for file, results in zip(files, (old, new)):
            rows = [{**r, "real_time": table.time_of(r)} for r in results["benchmarks"]
                    if r.get("run_type") != "aggregate" and not r.get("error_occurred") and table.parse(r["name"])]
            file.write_text(json.dumps({"context": results["context"], "benchmarks": rows}))
        command = [sys.executable, TOOL, "--dump_to_json", files[2], "benchmarks", *files[:2]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        differences = [d for d in json.loads(files[2].read_text()) if d.get("utest")]
    changed = []
    for row in differences:
        before, after = (statistics.median(m[key] for m in row["measurements"]) for key in ("real_time", "real_time_other"))
        if row["utest"]["time_pvalue"] < SIGNIFICANT:
            changed.append([row["name"], before, after, after / before, row["utest"]["time_pvalue"]])
    changed.sort(key=lambda row: -row[3])
    revisions = [results["context"].get("attend's revision", "an unknown revision") for results in (old, new)]
    return {"old": revisions[0], "new": revisions[1], "rows": len(differences), "changed": changed}


def headline(compared):
    slower = [row for row in compared["changed"] if row[3] > 1]
    faster = len(compared["changed"]) - len(slower)
    text = (f"Of {compared['rows']} rows {len(slower)} became slower and {faster} faster between {compared['old']} and "
            f"{compared['new']} (p < {SIGNIFICANT})")
    if slower:
        text += f"; most {slower[0][0]}, {slower[0][3]:.2f} times the time"
    return text + "."


def show(compared):
    print(f"\n{headline(compared)}")
    for name, _, _, ratio, p in compared["changed"]:
        print(f"{'slower' if ratio > 1 else 'faster'} {100 * (ratio - 1):+6.1f} % of the time  p = {p:.3f}  {name}")
