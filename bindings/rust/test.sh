#!/bin/sh
# Tests the Rust crates against the attend that pkg-config finds, and runs the examples.
#
# test.sh --source: against a library that cargo builds from the repository, which takes minutes.
set -eu
cd "$(dirname "$0")"
skip() {
  echo "skipped: no $1"
  exit 77
}
command -v cargo >/dev/null || skip cargo
features=
if [ "${1-}" = --source ]; then
  features="--features attend-cpu/source"
else
  pkg-config attend || skip "attend where pkg-config looks"
fi
CARGO_TARGET_DIR=${ATTEND_BINDINGS_BUILD:-$PWD/../../build/bindings/rust}
LD_LIBRARY_PATH=$(pkg-config --variable=libdir attend 2>/dev/null || true):${LD_LIBRARY_PATH-}
export CARGO_TARGET_DIR LD_LIBRARY_PATH

# shellcheck disable=SC2086 # a list of words
{
  cargo test --locked $features --features attend-cpu/half
  cargo check -q --locked $features
  cargo run -q --locked --release $features -p attend-cpu --example notebook
  cargo run -q --locked --release $features -p attend-cpu --example real_size
}
