#!/bin/sh
# build.sh shared|static SOURCE PROGRAM: compiles a C or C++ file against the attend that pkg-config finds, and runs it, with
# EMULATOR where it is another CPU's.
set -eu
kind=$1 source=$2 program=$3

case $kind in
shared) flags="$(pkg-config --cflags --libs attend) -Wl,-rpath,$(pkg-config --variable=libdir attend)" ;;
static) flags=$(pkg-config --static --cflags --libs attend | sed 's/-lattend/-l:libattend.a/') ;;
esac
mkdir -p "$(dirname "$program")"
case $source in
*.cpp) compiler="${CXX:-c++} -std=c++17" ;;
*) compiler="${CC:-cc} -std=c99" ;;
esac
# The compiler's and the flags are words, and so is the emulator.
# shellcheck disable=SC2086
$compiler -pedantic -Wall -Wextra -Werror -O2 "$source" $flags -lm -o "$program"
# shellcheck disable=SC2086
${EMULATOR-} "$program"
