"""The library against itself: bench_against.py PROGRAM LIBRARY. Nothing here depends on how long anything takes."""

import json
import re
import subprocess
import sys
import tempfile

ROWS = ["small_gemm/8", "small_attention/d4_n3"]


def run(*options):
    program, library = sys.argv[1:]
    command = [program, library, library, "--time", "0", "--filter", f"^({'|'.join(ROWS)})$", *options]
    return subprocess.run(command, capture_output=True, text=True)


def verdicts(done):
    """row -> verdict, of the table."""
    return dict(re.findall(r"^(\S+/\S+) +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ %  (.+)$", done.stdout, re.MULTILINE))


def expect(options, status, verdict):
    done = run(*options)
    assert done.returncode == status, (options, done.returncode, done.stdout, done.stderr)
    assert verdicts(done) == dict.fromkeys(ROWS, verdict), (options, done.stdout)
    return done


def main():
    # With these limits no machine is too noisy, and with that mark no row too slow.
    calm = ["--spread", "1e9"]
    done = expect([*calm, "--mark", "0"], 0, "passes")
    assert all(f"  {row.split('/')[0]} " in done.stdout for row in ROWS), f"groups are missing: {done.stdout}"
    assert "their spread: none" in done.stdout and "not measured" in done.stdout, done.stdout
    expect([*calm, "--mark", "0", "--threads", "2", "--rounds", "15"], 0, "passes")
    done = expect([*calm, "--mark", "inf"], 1, "MISSES")
    assert all(f"\n  {row}\n" in done.stdout for row in ROWS), f"not listed: {done.stdout}"
    expect(["--spread", "-1"], 0, "not measured")

    # What the page is made from.
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        expect([*calm, "--mark", "1e9", "--json", out.name, "--name", "before"], 1, "MISSES")
        results = json.load(out)
    assert (results["old"], results["threads"], results["mark"]) == ("before", 1, 1e9), results
    assert {row["name"]: row["verdict"] for row in results["rows"]} == dict.fromkeys(ROWS, "MISSES"), results
    assert all(row["microseconds"] > 0 and row["ratio"] > 0 for row in results["rows"]), results

    for options, message in [
        (["--isa", "abacus"], "instruction set"),
        (["--rounds", "3"], "at least 15"),
        (["--filter", "nothing"], "no row"),
        (["--filter"], "usage"),
        (["--fliter", "x"], "unknown option"),
    ]:
        done = run(*options)
        assert done.returncode == 2 and message in done.stderr, (options, done.returncode, done.stderr)
    program, library = sys.argv[1:]
    for other in (program, "/nowhere"):
        done = subprocess.run([program, library, other], capture_output=True, text=True)
        assert done.returncode == 2 and other in done.stderr, (other, done.returncode, done.stderr)
    print("all verdicts as expected")


if __name__ == "__main__":
    main()
