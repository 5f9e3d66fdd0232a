#!/bin/sh
# The two files of packaging/drop compiled for systems that nobody here has, and the notebook computed there: Windows, by
# mingw-w64 under wine, and musl, by the clang that the Python package ziglang carries. With the kernels generic and avx2, one thread.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/build/package/cross

rm -f "$out"/*.o
python3 -B packaging/drop/make.py "$out"
cp examples/notebook.c examples/numpy_random.h "$out/"
cd "$out"
sed -i 's|<attend/attend.h>|"attend.h"|' notebook.c
[ -x venv/bin/python ] || { python3 -m venv venv && venv/bin/pip -q install ziglang==0.17.1; }
# The table of kernels without those that would only take long to compile.
sed -i 's/ATTEND_ISA(avx512bf16).* ATTEND_ISA(avx2) ATTEND_ISA(sse42)/ATTEND_ISA(avx2)/' attend.cpp
common="-std=c++17 -O1 -ffp-contract=off -DATTEND_STATIC"

notebook() { # C compiler, C++ compiler, what runs the program
  # shellcheck disable=SC2086 # lists of words
  {
    $2 $common -DATTEND_X86 -c attend.cpp -o attend.o
    $2 $common -DATTEND_KERNELS_generic -c attend.cpp -o generic.o
    $2 $common -mavx2 -mfma -mf16c -DATTEND_KERNELS_avx2 -c attend.cpp -o avx2.o
    $1 -DATTEND_STATIC -c notebook.c -o notebook.o
    $2 -static ./*.o -o notebook.exe -lm
    $3 ./notebook.exe
  }
  rm ./*.o
}
echo "---- Windows"
export WINEDEBUG=-all WINEPREFIX="$out/wine"
notebook x86_64-w64-mingw32-gcc-posix x86_64-w64-mingw32-g++-posix /usr/lib/wine/wine64
echo "---- musl"
zig="venv/bin/python -m ziglang"
notebook "$zig cc -target x86_64-linux-musl" "$zig c++ -target x86_64-linux-musl" env
