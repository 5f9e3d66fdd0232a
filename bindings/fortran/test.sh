#!/bin/sh
# Builds the Fortran module against the attend that pkg-config finds, tests it, and runs its examples.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${ATTEND_BINDINGS_BUILD:-$here/../../build/bindings/fortran}
fortran=${FC:-gfortran}
skip() {
  echo "skipped: no $1"
  exit 77
}
command -v "$fortran" >/dev/null || skip "$fortran"
pkg-config attend || skip "attend where pkg-config looks"
mkdir -p "$build"
cd "$build"

flags="-std=f2018 -cpp -O2 -Wall -Wextra -Wno-compare-reals -Wno-function-elimination -Werror -I$here -I$here/tests"
libraries="$(pkg-config --libs attend) -Wl,-rpath,$(pkg-config --variable=libdir attend)"
for source in attend_c.f90 attend_status.f90 attend_arguments.f90 attend_serving.f90 attend_views.F90 attend.f90; do
  # shellcheck disable=SC2086 # lists of words
  "$fortran" $flags -c "$here/$source"
done
program() { # source: runs it with the further arguments
  name=$(basename "${1%.*}")
  # shellcheck disable=SC2086
  "$fortran" $flags -fopenmp -o "$name" "$1" attend.o attend_views.o attend_serving.o attend_arguments.o \
    attend_status.o attend_c.o $libraries
  shift
  "./$name" "$@"
}
program "$here/tests/attend_test.F90"
program "$here/tests/types_test.F90"
program "$here/tests/serving_test.F90"
program "$here/examples/notebook.f90" "$here/../notebook/inputs.txt"
program "$here/examples/real_size.f90"
