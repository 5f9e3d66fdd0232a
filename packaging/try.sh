#!/bin/sh
# try.sh [c|mpi|source|fortran|go|node|rust|rust-source|wheel|python-source|drop]...: installs each package that ./run package has made
# in a bare Debian 12 of its own, as its README says and with nothing else, and computes the notebook there. All of them if
# none is named. For root: a bare system is made by debootstrap, in build/package/bare-bookworm, and entered by chroot.
#
# Its sources of packages, certificates and proxies are those of this machine; DEBIAN_MIRROR chooses another one for
# debootstrap, and DEBIAN_SUITE another release than bookworm.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/build/package
suite=${DEBIAN_SUITE-bookworm}
bare=$out/bare-$suite

bare() {
  [ ! -e "$bare/complete" ] || return 0
  rm -rf "$bare"
  # shellcheck disable=SC2086 # absent, or one word
  debootstrap --variant=minbase "$suite" "$bare" ${DEBIAN_MIRROR-}
  cp -L /etc/resolv.conf "$bare/etc/"
  mkdir -p "$bare/etc/ssl"
  for file in /etc/ssl/certs /usr/local/share/ca-certificates /etc/pip.conf /etc/npmrc; do
    [ ! -e "$file" ] || cp -rLT "$file" "$bare$file"
  done
  touch "$bare/complete"
}

# What cargo would bring from its registry, of which Debian 12's cargo knows an older form only.
vendor() {
  [ -e "$out/vendor" ] || cargo vendor -q --locked --manifest-path bindings/rust/Cargo.toml "$out/vendor" >/dev/null
  mkdir -p "$1/.cargo" "$1/try/rust"
  cp -r "$out/vendor" "$1/try/rust/"
  printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "/try/rust/vendor"\n' >"$1/.cargo/config.toml"
}

bare
[ $# -gt 0 ] || set -- c mpi source fortran go node rust rust-source wheel python-source drop
for name in "$@"; do
  root=$out/trial-$name
  echo "---- $name, in a bare $suite"
  rm -rf "$root"
  cp -a "$bare" "$root"
  mkdir -p "$root/src" "$root/try"
  git ls-files -z | xargs -0 cp --parents -t "$root/src"
  case $name in
  wheel) cp "$out"/python/*.whl "$root/try/" ;;
  drop) cp "$out"/drop/*.tar.gz "$root/try/" ;;
  python-source | source) ;;
  *) cp "$out"/deb/*.deb "$root/try/" ;;
  esac
  case $name in
  node) cp "$out"/node/*.tgz "$root/try/" ;;
  rust*)
    for crate in "$out"/rust/package/*.crate; do tar -xzf "$crate" -C "$root/try"; done
    vendor "$root"
    ;;
  esac
  # With a /proc of its own, which ends with the command.
  unshare --mount sh -c 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$root" \
    env -u PIP_FIND_LINKS PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive sh -eu /src/packaging/try/inside.sh "$name"
  rm -rf "$root"
done
echo "installed and used in $suite: $*"
