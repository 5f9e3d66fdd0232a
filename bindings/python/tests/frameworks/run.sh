#!/bin/sh
# Tests attend.torch and attend.transformers in one process, against the attend that pkg-config finds, in a virtual environment of
# their own with what requirements.txt lists, every package by its hash.
#
# run.sh            if that environment is there; otherwise says that it skipped them
# run.sh --install  makes it first: 2.5 GB to fetch, 4 GB on disk, a minute or two
#
# ATTEND_REQUIRE_BINDINGS=1, which CI sets: makes it too.
# PYTHON: the interpreter to make it with, python3 by default.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../../.."
build=${ATTEND_BINDINGS_BUILD:-build/bindings/frameworks}
python=${PYTHON:-python3}

skip() {
  echo "skipped: $1"
  exit 77
}
mkdir -p "$build"
build=$(cd "$build" && pwd)
environment=$build/venv
bin=$environment/bin
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONPYCACHEPREFIX="$build/pycache"

if ! cmp -s "$here/requirements.txt" "$environment/requirements.txt"; then
  [ "${1-}" = --install ] || [ -n "${ATTEND_REQUIRE_BINDINGS-}" ] ||
    skip "PyTorch and transformers, which bindings/python/tests/frameworks/run.sh --install brings (4 GB)"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || skip "no venv (python3-venv)"
  "$python" -c 'import platform as p, sys; sys.exit((sys.version_info[:2], p.machine()) != ((3, 11), "x86_64"))' ||
    skip "no Python 3.11 for x86-64, of whose wheels requirements.txt has the hashes"
  rm -rf "$environment"
  "$python" -m venv "$environment"
  # Nothing is compiled beforehand, which would take as long as the tests.
  "$bin/pip" -q install --no-deps --no-compile --require-hashes --only-binary :all: -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$environment"
fi
for needed in pkg-config cmake cc; do command -v "$needed" >/dev/null || skip "no $needed"; done
pkg-config attend || skip "no attend where pkg-config looks"
CMAKE_PREFIX_PATH=$(pkg-config --variable=prefix attend)
export CMAKE_PREFIX_PATH
"$bin/pip" -q install --no-deps --config-settings cmake.define.ATTEND_PYTHON_INSTALLED=ON \
  --config-settings build-dir="$build/cmake" ./bindings/python

export HF_HUB_OFFLINE=1
cd "$build" # what is tested is what is installed
exec "$bin/python" -m pytest -q -rs -p no:cacheprovider -p no:logging "$here"
