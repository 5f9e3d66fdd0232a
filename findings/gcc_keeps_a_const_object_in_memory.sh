#!/bin/sh
# g++ leaves a local object in memory if it is declared const, and takes it apart into registers if it is not.
#
# Seen with g++ 12.2.0 (Debian 12.2.0-14+deb12u1, x86-64), at -O2 and -O3: a struct of two pointers and some numbers whose constructor is
# inlined and swaps its members by a condition, and whose members are then copied out. Without const the function writes its result
# alone, 8 accesses to the stack; with const it writes the object too and reads it again, 16: the pass that replaces aggregates by
# scalars refuses it (-fdump-tree-sra-details: "Encountered a store to a read-only decl"), since the stores are the constructor's,
# inlined. In short calls that is a fifth of the time, and nothing warns. clang 20 (in the package ziglang) treats both alike.
#
# Exit status 0: still so. Needs Debian 12 (amd64) with its package index, dpkg-deb, and python3 with venv and a package index;
# compiles only.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq g++-12=12.2.0-14+deb12u1 gcc-12=12.2.0-14+deb12u1 cpp-12=12.2.0-14+deb12u1 libisl23=0.25-1.1 \
  libmpc3=1.3.1-1 libmpfr6=4.2.0-1 libgmp10=2:6.2.1+dfsg1-1.1 libzstd1=1.5.4+dfsg2-5 zlib1g=1:1.2.13.dfsg-1
for package in *.deb; do dpkg-deb -x "$package" root; done
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check ziglang==0.15.2
cat > plan.cpp <<'C'
struct View { const float *data; long rows, columns; };
struct Block { View a, b; long m, n; };
struct Plan {
  View a, b;
  long m, n;
  inline __attribute__((always_inline)) Plan(const View &left, const View &right, long rows, long columns)
      : a(left), b(right), m(rows), n(columns) {
    if (rows < columns) {
      m = columns, n = rows;
      a = {right.data, right.columns, right.rows};
      b = {left.data, left.columns, left.rows};
    }
    if (m == 1) a.rows = 1;
  }
};
void kernel(const Block &);
void run(const View &left, const View &right, long rows, long columns) {
  QUALIFIER Plan plan(left, right, rows, columns);
  Block x;
  x.a.data = plan.a.data, x.a.rows = plan.a.rows, x.a.columns = plan.a.columns;
  x.b.data = plan.b.data, x.b.rows = plan.b.rows, x.b.columns = plan.b.columns;
  x.m = plan.m, x.n = plan.n;
  kernel(x);
}
C
gxx() {
  LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu root/usr/bin/x86_64-linux-gnu-g++-12 \
    -Broot/usr/lib/gcc/x86_64-linux-gnu/12/ "$@"
}
zig() { venv/bin/python -m ziglang c++ -target x86_64-linux-gnu -mcpu=x86_64 "$@"; }
# Accesses to the stack, of the result and of the object.
accesses() {
  name=$1
  shift
  "$@" -S -o plan.s plan.cpp
  count=$(grep -cE '\(%r[bs]p\)' plan.s)
  echo "$name: $count"
}
gxx --version | sed -n 1p
for level in -O2 -O3; do
  accesses "g++ $level" gxx $level -DQUALIFIER=
  without=$count
  accesses "g++ $level, const" gxx $level -DQUALIFIER=const
  [ "$count" -ge $((without + 5)) ]
done
gxx -O2 -DQUALIFIER=const -S -o plan.s -fdump-tree-sra-details=plan.txt plan.cpp
grep 'Disqualifying plan.*read-only' plan.txt
accesses "clang -O2" zig -O2 -DQUALIFIER=
without=$count
accesses "clang -O2, const" zig -O2 -DQUALIFIER=const
[ "$count" = "$without" ]
