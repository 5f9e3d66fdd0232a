#!/bin/sh
# Tuned for no CPU, g++ does not keep a vector that it loads for two or three products: each multiply-add reads it from memory again.
#
# Seen with g++ 12.2.0 (Debian 12.2.0-14+deb12u1, x86-64), -O3 -march=x86-64-v4: a loop that loads four vectors of 64 bytes and multiplies
# each by COLUMNS numbers. COLUMNS = 2: no load, but 8 multiply-adds with an operand in memory; 3: 12; 4: four loads, and operands in
# registers. With -mtune=haswell that is so of two, with -mtune=skylake-avx512 or sapphirerapids of none. The program says each load once,
# and there are registers enough. Where vectors lie across two lines, as in arrays from malloc, each is two lines from the L1 again:
# on an Emerald Rapids products of matrices in the L2 by two columns took longer than by three. An empty asm with the vector as its
# operand keeps it.
#
# Exit status 0: still so. Needs Debian 12 (amd64) with its package index and dpkg-deb; compiles only.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq g++-12=12.2.0-14+deb12u1 gcc-12=12.2.0-14+deb12u1 cpp-12=12.2.0-14+deb12u1 libisl23=0.25-1.1 \
  libmpc3=1.3.1-1 libmpfr6=4.2.0-1 libgmp10=2:6.2.1+dfsg1-1.1 libzstd1=1.5.4+dfsg2-5 zlib1g=1:1.2.13.dfsg-1
for package in *.deb; do dpkg-deb -x "$package" root; done
cat > product.cpp <<'C'
typedef float vec __attribute__((vector_size(64)));
typedef float unaligned __attribute__((vector_size(64), aligned(4)));
void product(long depth, const float *a, long a_k, const float *b, float *c) {
  vec sum[COLUMNS][4] = {};
  for (long k = 0; k < depth; ++k, a += a_k, b += COLUMNS) {
    vec x[4];
    for (int i = 0; i < 4; ++i) x[i] = *reinterpret_cast<const unaligned *>(a + 16 * i);
    for (int j = 0; j < COLUMNS; ++j) {
      for (int i = 0; i < 4; ++i) sum[j][i] = x[i] * (vec{} + b[j]) + sum[j][i];
    }
  }
  for (int j = 0; j < COLUMNS; ++j) {
    for (int i = 0; i < 4; ++i) *reinterpret_cast<unaligned *>(c + 64 * j + 16 * i) = sum[j][i];
  }
}
C
gxx() {
  LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu root/usr/bin/x86_64-linux-gnu-g++-12 \
    -Broot/usr/lib/gcc/x86_64-linux-gnu/12/ -O3 -march=x86-64-v4 "$@"
}
# Multiply-adds with a whole vector from memory, and loads of one.
count() {
  "$@" -S -o product.s product.cpp
  products=$(grep -E 'vfmadd.*\(.*zmm' product.s | grep -vc '{1to' || true)
  loads=$(grep -cE 'vmovu[a-z]*[[:space:]]+-?[0-9]*\(.*\), %zmm' product.s || true)
  echo "$* : $products products from memory, $loads loads"
}
expect() {
  want=$1
  shift
  count "$@"
  [ "$products $loads" = "$want" ] || { echo "was: $want"; exit 1; }
}
gxx --version | head -1
expect "8 0" gxx -DCOLUMNS=2
expect "12 0" gxx -DCOLUMNS=3
expect "0 4" gxx -DCOLUMNS=4
expect "8 0" gxx -DCOLUMNS=2 -mtune=haswell
expect "0 4" gxx -DCOLUMNS=3 -mtune=haswell
expect "0 4" gxx -DCOLUMNS=2 -mtune=skylake-avx512
expect "0 4" gxx -DCOLUMNS=2 -mtune=sapphirerapids
