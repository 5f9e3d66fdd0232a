"""The report: one HTML page that needs nothing else. Also that of ./run bench --against:

    python3 bench/report/page.py against.json against.html
"""

import json
import pathlib
import re
import sys
import textwrap

import comparison
import jinja2
import plots
import rows as table
import sections
import verdict

HERE = pathlib.Path(__file__).parent
# Of Google Benchmark's context: what nobody reads, and what stands elsewhere on the page.
HIDDEN = ("json_schema_version", "library_build_type", "library_version", "caches", "load_avg", "executable", "host_name",
          "cpu_scaling_enabled")
MARK = "~"
REVISION = "attend's revision"


def cell(x):
    """A value for people: three digits, and a mark where the quartiles lie too far apart."""
    if x is None:
        return ""
    if isinstance(x, tuple):
        return number(x[0]) + (MARK if plots.is_noisy(x) else "")
    return number(x)


def number(x):
    return str(x) if not isinstance(x, float) else f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"


def peers(context):
    """[(name, version, kernels or why it was left out)]."""
    found = []
    for key, text in context.items():
        kind, _, name = key.partition(": ")
        if kind == "peer":
            version, _, kernels = text.partition("; kernels: ")
            found.append((name, version, kernels))
        elif kind == "left out":
            found.append((name, "", f"left out: {text}"))
    return sorted(found)


def facts(context):
    shown = {key: text for key, text in context.items()
             if key not in HIDDEN and not key.startswith(("peer: ", "left out: "))}
    first = [key for key in ("CPU", "date", "attend", REVISION) if key in shown]
    return {key: shown[key] for key in dict.fromkeys([*first, *shown])}


def warnings(results):
    """The machine's troubles, which are said before anything else."""
    machine = results.get("machine", {})
    said = list(machine.get("sentences", []))
    if machine.get("busy"):
        said.append("Figures of this run are for trying the page, not for quoting: ./run bench --wait waits for quiet.")
    return said


def legend(all_rows):
    best = table.best_set(all_rows)
    labels = [table.label(r.who, r.threads) for r in sorted(all_rows, key=table.rank) if r.who not in table.FLOORS]
    return [(name, plots.colour(name, table.label(best) if best else None)) for name in dict.fromkeys(labels)]


def compared_section(compared):
    lines = [[name, before / 1e3, after / 1e3, ratio, p] for name, before, after, ratio, p in compared["changed"]]
    heads = ["row", f"{compared['old']}, µs", f"{compared['new']}, µs", "times the time", "p"]
    return {"title": "What changed", "text": comparison.headline(compared), "svg": "",
            "tables": [{"heads": heads, "lines": lines}] if lines else []}


def fill(**values):
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.filters["cell"] = cell
    return environment.get_template("page.html").render(**{"mark": MARK, "noisy": f"{table.NOISY:.0%}", **values})


def render(results):
    machine = results.get("machine", {})
    all_rows = table.read(results)
    made = sections.sections(results)
    if "compared" in results:
        made.insert(0, compared_section(results["compared"]))
    return fill(
        title="attend: benchmark report", facts=facts(results["context"]), peers=peers(results["context"]),
        busy=machine.get("busy", False), warnings=warnings(results), verdict=verdict.sentences(results), scope=verdict.scope(),
        legend=legend(all_rows), sections=made, failures=table.failures(results),
        noisy_count=sum(row.is_noisy for row in all_rows), row_count=len(all_rows),
    )


def render_against(results):
    """The rows of attend_bench_against, those that miss first."""
    order = ("MISSES", "within spread", "not measured", "left out", "passes")
    rows = sorted(results["rows"], key=lambda r: (order.index(r["verdict"]), r.get("ratio", 0)))
    misses = [r for r in rows if r["verdict"] == "MISSES"]
    measured = [r for r in rows if "ratio" in r and r["verdict"] != "not measured"]
    sentence = (f"{len(misses)} of {len(rows)} rows are slower than {results['old']} by more than their spread (mark "
                f"{results['mark']:g}), or do not work any more")
    if misses:
        ratio = misses[0].get("ratio")
        sentence += f"; most {misses[0]['name']}" + (f", {ratio:.3f} of its speed" if ratio else f": {misses[0]['why']}")
    unclear = sum(r["verdict"] in ("not measured", "left out") for r in rows)
    said = [sentence + ".", *([f"{unclear} rows say nothing: too noisy, or unknown to {results['old']}."] if unclear else [])]
    lines = [[r["name"], r.get("microseconds"), r.get("ratio"), r.get("control"),
              100 * r["spread"] if "spread" in r else None, r["verdict"], r.get("why", "")] for r in rows]
    heads = ["row", "old, µs", "old / now", "old / old", "spread, %", "verdict", "why"]
    groups = {r["name"]: {"attend": (r["ratio"], r["ratio"] - r["spread"], r["ratio"] + r["spread"])} for r in measured}
    svg = plots.bars(groups, "old library's time over the new one's: above 1 is faster now") if groups else ""
    every = {"title": "Every row", "text": "Speed now over speed then, with the spread of the old library beside its own copy.",
             "svg": svg, "tables": [{"heads": heads, "lines": lines}]}
    context = {"compared with": results["old"], "instruction set": results["isa"], "threads": results["threads"]}
    return fill(title="attend: now against an earlier revision", facts=context, peers=[], busy=False, warnings=[],
                verdict=said, scope="", legend=[], sections=[every], failures=[], noisy_count=0, row_count=len(rows))


def picture(results):
    """The speed-ups as a file of its own: ink for a light and a dark ground; machine, date, versions and peers in it."""
    all_rows = table.read(results)
    gains = sections.pictured(all_rows)
    if not gains:
        return ""
    context = results["context"]
    said = [f"{context.get('CPU', 'unknown CPU')}, one thread, f32. {context.get('date', '')[:10]}, attend {context.get('attend', '')} "
            f"at revision {context.get(REVISION, 'unknown')}."]
    others = []
    for name, version in short_versions(context):
        who, _, what = name.partition(", ")
        if who in sections.NOT_PICTURED:
            continue
        others.append(f"{verdict.name_of(who)} {version}" + (f" ({what})" if what else ""))
    if others:
        listed = ", ".join(other.replace(" ", "\xa0") for other in others)  # no line ends between a name and its version
        said += [line.replace("\xa0", " ") for line in textwrap.wrap(f"Beside {listed}.", 140)]
    if any(table.label(table.FROM_PYTHON) in values for values in gains.values()):
        said.append("PyTorch, ONNX Runtime and ggml are called from Python, and so is attend for comparison with them.")
    if any(plots.is_noisy(value) for values in gains.values() for value in values.values()):
        said.append(f"Hatched: the quartiles of the repetitions lie more than {table.NOISY:.0%} of the median apart.")
    machine = results.get("machine", {})
    said += [sentence.partition(" Before ")[0] for sentence in machine.get("sentences", [])]
    if machine.get("busy"):
        said.append("Not for quoting.")
    svg = plots.panels(gains, "times as fast as naive loops", "\n".join(said), spelled)
    style = ("<style>svg{color:#1f2328;color-scheme:light dark}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>")
    end = svg.index(">") + 1
    return svg[:end] + style + svg[end:]


def spelled(label):
    return {"naive": "naive loops", "blocked": "blocked loops"}.get(label) or verdict.name_of(label)


def short_versions(context):
    """Peers with the digits of their versions alone."""
    for name, version, _ in peers(context):
        if version:
            found = re.search(r"\d[\d.]*\d", version)
            yield name, found[0] if found else version


def main():
    source, target = map(pathlib.Path, sys.argv[1:])
    target.write_text(render_against(json.loads(source.read_text())))


if __name__ == "__main__":
    main()
