#!/bin/sh
# gcc gives an accumulator two registers, and spills, if it is kept as __m512i where the step adds to __m512.
#
# Seen with gcc 12.2.0 (Debian 12.2.0-14+deb12u1, x86-64): a tile of 3 x 8 accumulators and vfmadd231ps, or vdpbf16ps, which needs 28
# of the 32 registers. With accumulators of type __m512 the loop has no access to the stack. With __m512i and the casts around
# each step, which are said to generate no instructions, it stores and loads most of them at every step: on a Zen 4 two thirds
# of the speed. Nothing warns of it. One loop for steps on integers and on floats, with one type for both, is where one meets it.
# clang 20 (in the package ziglang) takes either.
#
# Exit status 0: still so. Needs Debian 12 (amd64) with its package index, dpkg-deb, and python3 with venv and a package index;
# compiles only.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq gcc-12=12.2.0-14+deb12u1 cpp-12=12.2.0-14+deb12u1 libgcc-12-dev=12.2.0-14+deb12u1 libisl23=0.25-1.1 \
  libmpc3=1.3.1-1 libmpfr6=4.2.0-1 libgmp10=2:6.2.1+dfsg1-1.1 libzstd1=1.5.4+dfsg2-5 zlib1g=1:1.2.13.dfsg-1
for package in *.deb; do dpkg-deb -x "$package" root; done
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check ziglang==0.15.2
cat > tile.c <<'C'
#include <immintrin.h>
#ifdef INTEGERS
typedef __m512i sums;
#define FLOATS(x) _mm512_castsi512_ps(x)
#define KEPT(x) _mm512_castps_si512(x)
#else
typedef __m512 sums;
#define FLOATS(x) (x)
#define KEPT(x) (x)
#endif
#define UNROLLED _Pragma("GCC unroll 8")
void tile(const float *a, const float *b, long step, long depth, float *to) {
  sums acc[3][8];
  UNROLLED for (int j = 0; j < 8; ++j) {
    UNROLLED for (int v = 0; v < 3; ++v) acc[v][j] = KEPT(_mm512_setzero_ps());
  }
  for (long k = 0; k < depth; ++k, a += 48, ++b) {
    UNROLLED for (int j = 0; j < 8; ++j) {
      const __m512 x = _mm512_set1_ps(b[j * step]);
      UNROLLED for (int v = 0; v < 3; ++v) {
        acc[v][j] = KEPT(_mm512_fmadd_ps(_mm512_loadu_ps(a + 16 * v), x, FLOATS(acc[v][j])));
      }
    }
  }
  UNROLLED for (int j = 0; j < 8; ++j) {
    UNROLLED for (int v = 0; v < 3; ++v) _mm512_storeu_ps(to + 16 * (3 * j + v), FLOATS(acc[v][j]));
  }
}
C
gcc() {
  LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu root/usr/bin/x86_64-linux-gnu-gcc-12 \
    -Broot/usr/lib/gcc/x86_64-linux-gnu/12/ -ffreestanding -mavx512f -isystem root/usr/lib/gcc/x86_64-linux-gnu/12/include "$@"
}
# Whole registers stored to the stack, in a function whose loop needs none of it.
spills() {
  name=$1
  shift
  "$@" -S -o tile.s tile.c
  [ "$(grep -c vfmadd tile.s)" -ge 24 ]
  count=$(grep -cE '%zmm[0-9]+, *-?[0-9]*\(%r[bs]p\)' tile.s || true)
  echo "$name: $count"
}
gcc --version | sed -n 1p
for level in -O2 -O3; do
  spills "gcc $level, __m512" gcc $level
  [ "$count" = 0 ]
  spills "gcc $level, __m512i and casts" gcc $level -DINTEGERS
  [ "$count" -gt 12 ]
done
spills "clang -O2, __m512i and casts" venv/bin/python -m ziglang cc -target x86_64-linux -mcpu=skylake_avx512 -mprefer-vector-width=512 -ffreestanding -O2 -DINTEGERS
[ "$count" = 0 ]
