#!/bin/sh
# Builds the addon against the attend that pkg-config finds, tests it, and runs the examples.
set -eu
cd "$(dirname "$0")"
skip() {
  echo "skipped: no $1"
  exit 77
}
command -v node >/dev/null || skip node
node -e 'process.exit(process.versions.node.split(".")[0] < 18 ? 1 : 0)' || skip "Node.js 18"
command -v "${CC:-cc}" >/dev/null || skip "C compiler"
pkg-config attend || skip "attend where pkg-config looks"
ATTEND_NODE_ADDON=${ATTEND_BINDINGS_BUILD:-$PWD/../../build/bindings/node}/attend.node
export ATTEND_NODE_ADDON
sh build.sh "$ATTEND_NODE_ADDON"

# The compiler that checks the declarations; without it that test says it was skipped.
if [ ! -d node_modules/typescript ] && command -v npm >/dev/null; then
  npm install --silent --no-save --no-package-lock --ignore-scripts || echo "typescript could not be installed"
fi
node --expose-gc --test test/*.test.mjs
node examples/notebook.mjs
node examples/real_size.mjs
