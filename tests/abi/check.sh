#!/bin/sh
# check.sh BUILD [--update]: compares the library's binary interface with attend.abi, that of the last release, or stores
# it there. What may be added: functions, and fields at the end of structures that say their size (suppressions.ini).
# 77 = skipped.
#
# The exported functions are all in src/api/, so that this is compiled, with debugging information, and nothing else.
set -eu
mkdir -p "$1"
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.." # so that the paths in attend.abi are relative
here=tests/abi
library=$build/libattend_abi.so

if ! command -v abidiff >/dev/null || ! command -v abidw >/dev/null; then
  echo "skipped: no abidiff (abigail-tools)"
  exit 77
fi
${CXX:-c++} -std=c++17 -g -O0 -fPIC -fvisibility=hidden -shared -Wl,--version-script=cmake/attend.map \
  -I include -I src src/api/*.cpp -o "$library"
# No paths, and nothing that depends on the compiler but the types themselves.
abidw --headers-dir include --drop-private-types --no-architecture --no-corpus-path --no-comp-dir-path \
  --no-show-locs --no-elf-needed --no-parameter-names --type-id-style hash --out-file "$build/attend.abi" "$library"
if [ "${2-}" = --update ]; then
  cp "$build/attend.abi" "$here/attend.abi"
else
  abidiff --suppressions "$here/suppressions.ini" --no-added-syms "$here/attend.abi" "$build/attend.abi"
fi
