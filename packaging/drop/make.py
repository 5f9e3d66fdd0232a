"""make.py OUT [XSIMD]: the library as two files that are added to a program, attend.h and attend.cpp, in
OUT/attend-<version>.tar.gz with README.md, which says how they are compiled, and the licences. XSIMD: where <xsimd/xsimd.hpp> is,
/usr/include by default; it goes into attend.cpp.

One file, but compiled once per instruction set and once for the rest, as the library itself is: g++ could change its target in the
middle of a file (#pragma GCC target), but xsimd chooses what it declares when it is included, by macros that clang's pragmas
leave alone, and it cannot be included twice.
"""

import re
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SRC = ROOT / "src"

# attend.cpp before its #includes are replaced. What all kernels include comes before what only one does.
HEAD = """\
// attend {version} in one file: README.md says how to compile it.
#if {kernels}
#include "kernels/table.hpp"
#include "kernels/simd.hpp"
#if !defined(ATTEND_KERNELS_generic)
{renames}#include <xsimd/xsimd.hpp>
#endif
{backends}#include "kernels/define_table.hpp"
#else
{core}#endif
"""
ISA_LIST = """\
#if defined(ATTEND_X86)
ATTEND_ISA(avx512bf16) ATTEND_ISA(avx512vnni) ATTEND_ISA(avx512) ATTEND_ISA(avx2) ATTEND_ISA(sse42)
#elif defined(ATTEND_ARM)
ATTEND_ISA(neon)
#endif
ATTEND_ISA(generic)
"""


class Writer:
    """Replaces #includes by the files, each once on every way through the #ifs."""

    def __init__(self, xsimd):
        self.folders = [SRC, xsimd]
        self.seen = [set()]  # files that were written, for each #if that is open
        self.lines = []

    def find(self, name, folder):
        for base in (folder, *self.folders):
            path = (base / name).resolve()
            if path.is_file() and any(root in path.parents for root in (SRC, self.folders[1] / "xsimd")):
                return path
        return None

    def write(self, text, folder):
        for line in text.splitlines():
            include = re.match(r'\s*#\s*include\s*["<]([^">]+)[">]', line)
            if include and include[1] == "attend/attend.h":
                line = '#include "attend.h"'
            elif include and include[1] == "attend_isa_list.inc":
                self.lines += ISA_LIST.splitlines()
                continue
            elif include and (path := self.find(include[1], folder)):
                self.file(path)
                continue
            directive = re.match(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b", line)
            if directive and not directive[1].startswith("if"):
                self.seen.pop()
            if directive and directive[1] != "endif":
                self.seen.append(set())
            if not line.startswith("#pragma once"):
                self.lines.append(line)

    def file(self, path):
        if any(path in files for files in self.seen):
            return
        text = path.read_text()
        # Files that are meant to be included once have the pragma, xsimd's have a guard: ours take the place of both.
        guard = re.search(r"^#ifndef (\w+_HPP)\s*\n#define \1\b.*\n", text, re.MULTILINE)
        if guard:
            text = text[guard.end() : text.rindex("#endif")]
        if not guard and "#pragma once" not in text:
            self.write(own_names(path) if path.suffix == ".cpp" else text, path.parent)
            return
        # What is xsimd's comes before whatever includes it again.
        self.seen[-1 if SRC in path.parents else 0].add(path)
        name = "ATTEND_DROP_" + re.sub(r"\W", "_", f"{path.parent.name}/{path.name}")
        self.lines += [f"#ifndef {name}", f"#define {name}"]
        self.write(text, path.parent)
        self.lines.append("#endif")


def private_names(path):
    """What a .cpp file defines in its anonymous namespace, at the beginning of a line."""
    inside = re.findall(r"^namespace {$(.*?)^}  // namespace$", path.read_text(), re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^[a-z][\w:<>,&* ]*?[ *&](\w+)(?= *[({=\[;])", "\n".join(inside), re.MULTILINE))


def own_names(path):
    """The file with a name of its own for each private name that another file's private one, or a header's constant, has too."""
    others = set().union(*(private_names(other) for other in SRC.glob("*/*.cpp") if other != path))
    for header in SRC.glob("*/*.hpp"):
        others.update(re.findall(r"^(?:inline )?constexpr [\w:<>]+ (\w+) =", header.read_text(), re.MULTILINE))
    text = path.read_text()
    for name in private_names(path) & others:
        text = re.sub(rf"(?<![.:\w>]){name}\b", f"{name}_{path.stem}", text)
    return text


def isas():
    """Names and flags: the rows of cmake/AttendIsa.cmake."""
    rows = re.findall(r'^ +"(\w+) (-O\d[^"]*)"', (ROOT / "cmake" / "AttendIsa.cmake").read_text(), re.MULTILINE)
    return dict(rows)


def isa_file(name):
    """What an instruction set has of its own: what all have comes once, behind."""
    return (SRC / "kernels" / "isa" / f"{name}.cpp").read_text().replace('#include "kernels/define_table.hpp"\n', "")


def source(version, xsimd):
    names = list(isas())
    condition = lambda name: f"defined(ATTEND_KERNELS_{name})"
    vectors = [name for name in names if name != "generic"]
    writer = Writer(xsimd)
    writer.write(HEAD.format(
        version=version,
        kernels=" || ".join(map(condition, names)),
        renames="".join(f"#if {condition(n)}\n#define xsimd attend_xsimd_{n}\n#endif\n" for n in vectors),
        backends="".join(f"#if {condition(n)}\n{isa_file(n)}#endif\n" for n in names),
        core="".join(f'#include "{p.relative_to(SRC)}"\n' for d in ("api", "dispatch", "drivers") for p in sorted((SRC / d).glob("*.cpp"))),
    ), SRC)
    return "\n".join(writer.lines) + "\n"


def main():
    out = Path(sys.argv[1])
    xsimd = Path(sys.argv[2] if len(sys.argv) > 2 else "/usr/include").resolve()
    header = (ROOT / "include" / "attend" / "attend.h").read_text()
    version = re.search(r"define ATTEND_VERSION \d+ /\* ([0-9.]+) \*/", header)[1]
    readme = (HERE / "README.md").read_text()
    for name, flags in isas().items():
        if f"{flags} -DATTEND_KERNELS_{name} " not in readme:
            sys.exit(f"{HERE / 'README.md'} does not compile {name} with {flags}")

    out.mkdir(parents=True, exist_ok=True)
    files = {
        "attend.h": header,
        "attend.cpp": source(version, xsimd),
        "README.md": readme,
        "LICENSE": (ROOT / "LICENSE").read_text(),
        "LICENSE.xsimd": (HERE.parent / "LICENSE.xsimd").read_text(),
    }
    for name, text in files.items():
        (out / name).write_text(text)
    with tarfile.open(out / f"attend-{version}.tar.gz", "w:gz") as archive:
        for name in files:
            archive.add(out / name, f"attend-{version}/{name}")


main()
