#!/bin/sh
# Builds the binding against the attend that pkg-config finds and tests it, in a virtual environment of its own.
#
# test.sh            against the installed library
# test.sh --wheel    builds the wheel that has the library inside, lists it, and tests that one
#
# PYTHON: the interpreter to use, python3 by default.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
build=${ATTEND_BINDINGS_BUILD:-build/bindings/python}
python=${PYTHON:-python3}

skip() {
  echo "skipped: no $1"
  exit 77
}
command -v "$python" >/dev/null || skip "$python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || skip "Python 3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null || skip "venv (python3-venv)"
"$python" -c 'import os, sysconfig as s; open(os.path.join(s.get_path("include"), "Python.h"))' 2>/dev/null ||
  skip "Python.h (python3-dev)"
command -v cc >/dev/null || skip "cc"
command -v cmake >/dev/null || skip "cmake"

mkdir -p "$build"
build=$(cd "$build" && pwd)
if [ "${1-}" = --wheel ]; then
  environment=$build/wheel-venv
else
  command -v pkg-config >/dev/null || skip "pkg-config"
  pkg-config attend || skip "attend where pkg-config looks"
  environment=$build/venv
fi
[ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
bin=$environment/bin
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1

if [ "${1-}" = --wheel ]; then
  rm -rf "$build/wheel"
  "$bin/pip" -q wheel --no-deps -w "$build/wheel" --config-settings build-dir="$build/cmake-wheel" ./bindings/python
  ls -l "$build"/wheel/*.whl
  "$bin/python" -m zipfile -l "$build"/wheel/*.whl
  "$bin/pip" -q install "$(echo "$build"/wheel/*.whl)[test]"
  "$bin/pip" -q install --force-reinstall --no-deps "$build"/wheel/*.whl
else
  CMAKE_PREFIX_PATH=$(pkg-config --variable=prefix attend)
  export CMAKE_PREFIX_PATH
  "$bin/pip" -q install --config-settings cmake.define.ATTEND_PYTHON_INSTALLED=ON \
    --config-settings build-dir="$build/cmake" './bindings/python[test]'
fi

# Elsewhere than in the sources, so that what is tested is what is installed.
cd "$build"
ATTEND_WHEEL=${1-} "$bin/python" -m pytest -q -rs -p no:cacheprovider "$here/tests"
(cd "$here" && "$bin/mypy" --cache-dir "$build/mypy")
"$bin/python" "$here/examples/notebook.py" >notebook.txt
"$bin/python" "$here/examples/real_size.py"
