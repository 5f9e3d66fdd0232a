#!/bin/sh
# two_openmp.sh LIBRARY PROGRAM: compiles two_openmp.cpp with clang's OpenMP and runs it both ways; 77 = skipped.
set -eu
library=$1 program=$2
here=$(cd "$(dirname "$0")" && pwd)

for compiler in clang++-19 clang++ none; do
  if command -v "$compiler" >/dev/null && "$compiler" -std=c++17 -O1 -Wall -Wextra -Werror -fopenmp \
    -I "$here/../../include" "$here/two_openmp.cpp" -o "$program"; then
    break
  fi
done
if [ "$compiler" = none ]; then
  echo "skipped: no clang with libomp (clang-19 and libomp-19-dev)"
  exit 77
fi
timeout 300 "$program" "$library"
timeout 300 "$program" "$library" deep
