#!/bin/sh
# Compiles the addon against the attend that pkg-config finds: build/attend.node, or where $1 says.
set -eu
cd "$(dirname "$0")"
out=${1:-build/attend.node}
# Node's own headers: beside the program, or Debian's package libnode-dev.
headers=
for directory in "$(node -p 'require("path").resolve(process.execPath, "../../include/node")')" /usr/include/node /usr/include/nodejs/src; do
  if [ -z "$headers" ] && [ -e "$directory/node_api.h" ]; then headers=$directory; fi
done
[ -n "$headers" ] || { echo "node_api.h was not found (Debian: libnode-dev)" >&2; exit 1; }
mkdir -p "$(dirname "$out")"
# shellcheck disable=SC2046 # lists of words
"${CC:-cc}" -std=c11 -O2 -fPIC -shared -Wall -Wextra -Werror -fvisibility=hidden -o "$out" src/addon.c -isystem "$headers" \
  $(pkg-config --cflags --libs attend) -Wl,-rpath,"$(pkg-config --variable=libdir attend)"
