#!/bin/sh
# gcc drops the call of a function that does nothing but __builtin_prefetch, where it does not inline it, from -O1 on.
#
# Seen with gcc 12.2.0 (Debian 12.2.0-14+deb12u1, x86-64). The function is compiled, prefetches and all; but as it writes nothing its
# callers take it for one without effect. So moving prefetches out of a loop into a function of their own, or a lambda that grows too
# large to be inlined, takes them away without a word, and nothing but time tells. always_inline keeps them, as does -O0; so does
# -fno-ipa-modref, which shows whose conclusion it is. clang 20 (in the package ziglang) keeps the call.
#
# Exit status 0: still so. Needs Debian 12 (amd64) with its package index, dpkg-deb, and python3 with venv and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq gcc-12=12.2.0-14+deb12u1 cpp-12=12.2.0-14+deb12u1 libisl23=0.25-1.1 libmpc3=1.3.1-1 libmpfr6=4.2.0-1 \
  libgmp10=2:6.2.1+dfsg1-1.1 libzstd1=1.5.4+dfsg2-5 zlib1g=1:1.2.13.dfsg-1
for package in *.deb; do dpkg-deb -x "$package" root; done
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check ziglang==0.15.2
cat > ask.c <<'C'
#define KIND HOW
KIND static void ask(const char *p, long bytes) {
  for (long i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}
void before_the_next(const char *p, long bytes) { ask(p, bytes); }
C
gcc() {
  LD_LIBRARY_PATH=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu root/usr/bin/x86_64-linux-gnu-gcc-12 \
    -Broot/usr/lib/gcc/x86_64-linux-gnu/12/ "$@"
}
# Prefetches and calls within before_the_next, which is all that a caller gets.
kept() {
  name=$1
  shift
  "$@" -S -o ask.s ask.c
  count=$(sed -n '/^before_the_next:/,/\.cfi_endproc/p' ask.s | grep -cE '(call|jmp).*[^.]ask|prefetch' || true)
  echo "$name: $count"
}
gcc --version | sed -n 1p
for level in -O1 -O2 -O3; do
  kept "gcc $level, not inlined" gcc $level "-DHOW=__attribute__((noinline))"
  [ "$count" = 0 ]
  kept "gcc $level, always inlined" gcc $level "-DHOW=inline __attribute__((always_inline))"
  [ "$count" != 0 ]
done
kept "gcc -O2 -fno-ipa-modref, not inlined" gcc -O2 -fno-ipa-modref "-DHOW=__attribute__((noinline))"
[ "$count" != 0 ]
kept "gcc -O0, not inlined" gcc -O0 "-DHOW=__attribute__((noinline))"
[ "$count" != 0 ]
kept "clang -O2, not inlined" venv/bin/python -m ziglang cc -target x86_64-linux -O2 "-DHOW=__attribute__((noinline))"
[ "$count" != 0 ]
