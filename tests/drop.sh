#!/bin/sh
# drop.sh FOLDER: makes the two files of packaging/drop in FOLDER, lets the compiler look at each of their parts, and computes the
# notebook with the portable kernels. The parts are compiled for speed, and run, by packaging/try.sh.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cxx=${CXX:-c++}
command -v python3 >/dev/null || { echo "skipped: no python3" && exit 77; }
python3 -B "$root/packaging/drop/make.py" "$1" ${XSIMD+"$XSIMD"}
cd "$1"
common="-std=c++17 -ffp-contract=off"
# The instruction sets and their flags, from the commands of README.md.
grep -o ' -m.*-DATTEND_KERNELS_[a-z0-9]*' README.md >parts
while read -r part; do
  # shellcheck disable=SC2086 # lists of words
  case $(uname -m) in x86_64) $cxx $common $part -fsyntax-only attend.cpp ;; esac
done <parts
# shellcheck disable=SC2086
{
  $cxx $common -DATTEND_STATIC -c attend.cpp -o attend.o
  $cxx $common -DATTEND_KERNELS_generic -c attend.cpp -o attend_generic.o
}
mkdir -p attend
cp attend.h attend/
"${CC:-cc}" -std=c99 -DATTEND_STATIC -I. -c "$root/examples/notebook.c" -o notebook.o
$cxx notebook.o attend.o attend_generic.o -lm -pthread -o notebook
./notebook
