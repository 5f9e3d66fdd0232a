#!/usr/bin/env python3
"""Would the tests notice? Applies the defects of defects.txt one by one to a copy of the tree and runs the tests.

A defect is caught when a test fails, crashes or hangs. The tests that it names run first, and if they miss it all the
others; what none of them catches SURVIVED, and is a test to write. Needs an x86-64 CPU with AVX2; builds the kernels
of avx2 and generic alone, and for defects `on` another instruction set that too, if the CPU has it. Exit code 1 if a
defect survives, does not build, or no longer fits the source.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CONFIGURE = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1",
             "-DATTEND_BUILD_BENCH=OFF", "-DATTEND_BUILD_EXAMPLES=OFF"]
# What the CPU must have for an instruction set, as /proc/cpuinfo spells it.
CPU_FLAG = {"avx512": "avx512f", "avx512bf16": "avx512_bf16", "avx512vnni": "avx512_vnni"}


class Defect:
    def __init__(self, name):
        self.name, self.file, self.isa, self.tests, self.old, self.new = name, None, None, [], [], []

    def can_run(self):
        return self.isa is None or CPU_FLAG[self.isa] in Path("/proc/cpuinfo").read_text().split()

    def apply(self, tree):
        """Writes the file with the defect; its text before."""
        path = tree / self.file
        before = path.read_text()
        path.write_text(before.replace("\n".join(self.old), "\n".join(self.new)))
        return before

    def misfit(self, tree):
        """Why the defect cannot be applied, or None."""
        path = tree / self.file
        count = path.read_text().count("\n".join(self.old)) if path.is_file() else 0
        return None if count == 1 else f"{self.name}: its text is in {self.file} {count} times, not once"


def read_defects(path):
    defects = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        key, _, value = line.partition(" ")
        if key == "defect" and value and all(value != d.name for d in defects):
            defects.append(Defect(value))
        elif key == "in" and defects:
            defects[-1].file = value
        elif key == "on" and defects and value in CPU_FLAG:
            defects[-1].isa = value
        elif key == "caught-by" and defects:
            defects[-1].tests = value.split()
        elif key in ("-", "+") and defects:
            (defects[-1].old if key == "-" else defects[-1].new).append(value)
        elif line.strip() and not line.startswith("#"):
            sys.exit(f"{path.name}:{number}: what is this? {line}")
    for d in defects:
        if not (d.file and d.tests and d.old) or d.old == d.new:
            sys.exit(f"{path.name}: {d.name} needs a file, the tests that catch it, a text and another in its place")
    return defects


def copy_tree(to):
    """The files that git knows, as they are now; those that are the same already keep their time."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        source, target = ROOT / name, to / name
        if not source.is_file() or (target.is_file() and target.read_bytes() == source.read_bytes()):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        shutil.copymode(source, target)


class Build:
    def __init__(self, tree, jobs, isa):
        isas = ";".join(filter(None, [isa, "avx2", "generic"]))
        self.dir, self.jobs, self.limit = tree / ("build_" + isa if isa else "build"), jobs, {}
        subprocess.run(["cmake", "-S", tree, "-B", self.dir, *CONFIGURE, f"-DATTEND_QUICK_ISAS={isas}"], check=True,
                       stdout=subprocess.DEVNULL)
        shown = subprocess.run(["ctest", "--test-dir", self.dir, "-L", "unit", "--show-only=json-v1"], check=True,
                               capture_output=True, text=True).stdout
        self.tests = [t["name"] for t in json.loads(shown)["tests"]]

    def make(self, test):
        """Builds a test; the compiler's complaints, or None."""
        done = subprocess.run(["ninja", "-C", self.dir, "-j", str(self.jobs), f"{test}_test"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.stdout[-2000:] if done.returncode else None

    def run(self, test):
        """How the test fails, or None."""
        program = [self.dir / "tests" / f"{test}_test", "--abort-after=1"]
        process = subprocess.Popen(program, cwd=self.dir, start_new_session=True,
                                   env={**os.environ, "ATTEND_REQUIRE_ISA": "avx2", "OMP_WAIT_POLICY": "passive"},
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            code = process.wait(self.limit.get(test, 1800))
            return None if code == 0 else "failed" if code > 0 else signal.Signals(-code).name
        except subprocess.TimeoutExpired:
            return "hangs"
        finally:
            try:  # forked children too
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()

    def first_failure(self, tests):
        """The first test that fails and how, or None; ('', text) if the tree does not build."""
        for test in tests:
            complaint = self.make(test)
            if complaint:
                return "", complaint
            how = self.run(test)
            if how:
                return test, how
        return None

    def check_baseline(self, tests):
        """Every test must pass without a defect; how long it takes says when it hangs with one."""
        for test in tests:
            complaint = self.make(test)
            begin = time.monotonic()
            how = complaint or self.run(test)
            if how:
                sys.exit(f"without a defect {test} does not pass: {how}")
            self.limit[test] = 60 + 10 * (time.monotonic() - begin)
        print(f"without a defect {', '.join(tests)} pass", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", action="append", help="this defect (may be repeated)")
    parser.add_argument("--fits", action="store_true", help="only look whether every defect still fits the source")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="of the builds")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="work there and leave it: the next run is quicker")
    arguments = parser.parse_args()

    defects = read_defects(HERE / "defects.txt")
    unknown = set(arguments.only or []) - {d.name for d in defects}
    if unknown:
        parser.error(f"no such defect: {', '.join(sorted(unknown))}")
    selected = [d for d in defects if not arguments.only or d.name in arguments.only]
    misfits = [m for m in (d.misfit(ROOT) for d in defects) if m]
    if misfits:
        sys.exit("\n".join(misfits))
    if arguments.fits:
        return 0

    begin = time.monotonic()
    folder = arguments.keep.resolve() if arguments.keep else Path(tempfile.mkdtemp(prefix="attend_mutations_"))
    try:
        tree = folder / "attend"
        copy_tree(tree)
        builds = {}
        for isa in dict.fromkeys(d.isa for d in selected if d.can_run()):
            builds[isa] = Build(tree, arguments.jobs, isa)
            builds[isa].check_baseline(list(dict.fromkeys(test for d in selected if d.isa == isa for test in d.tests)))
        caught = 0
        for d in selected:
            if d.isa not in builds:
                print(f"{d.name:42} not run: this CPU has no {d.isa}", flush=True)
                continue
            build = builds[d.isa]
            start = time.monotonic()
            before = d.apply(tree)
            try:
                result = build.first_failure([*d.tests, *(t for t in build.tests if t not in d.tests)])
            finally:
                (tree / d.file).write_text(before)
            if result and result[0] and result[0] not in build.limit:
                build.check_baseline([result[0]])
            caught += bool(result and result[0])
            said = ("SURVIVED" if result is None else f"caught by {result[0]} ({result[1]})" if result[0] else
                    f"DOES NOT BUILD\n{result[1]}")
            print(f"{d.name:42} {said}, {time.monotonic() - start:.0f} s", flush=True)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    ran = sum(d.isa in builds for d in selected)
    print(f"{len(selected)} defects, {caught} caught, {ran - caught} not, {len(selected) - ran} not run, in "
          f"{(time.monotonic() - begin) / 60:.1f} min")
    return caught != ran


if __name__ == "__main__":
    sys.exit(main())
