#!/bin/sh
# An operator with gradients by torch.library.register_autograd takes time by the square of how many arguments it has.
#
# Seen with torch 2.15.0. Where there is a setup_context, each call that records gradients fills in defaults argument by argument
# (torch._library.utils.fill_defaults), and asks op._schema.arguments for each of them, twice: a list of all arguments, made anew in
# C++ every time. A call of an operator that does next to nothing takes 13 us with no optional arguments, 68 with 15, 206 with 30 and
# 744 with 60; without gradients 8 to 21. (attend's operator has 17 arguments, and on CPUs a kernel of its own for "AutogradCPU":
# 28 us a call, not 90.)
#
# Exit status 0: still so. Needs python3 with venv and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 torch==2.15.0
"$folder/venv/bin/python" - <<'PY'
import time

import torch


def microseconds(call):
    taken = []
    for _ in range(15):
        begin = time.process_time()
        for _ in range(100):
            call()
        taken.append((time.process_time() - begin) * 1e4)
    return min(taken)


def operator(options):
    name = f"finding::double_{options}"
    torch.library.define(name, f"(Tensor x{''.join(f', Tensor? o{i}' for i in range(options))}) -> Tensor")
    torch.library.impl(name, "CPU", lambda x, *given: x * 2)
    torch.library.register_autograd(name, lambda ctx, d: (d * 2, *(None,) * options), setup_context=lambda ctx, inputs, output: None)
    return getattr(torch.ops.finding, f"double_{options}").default


x = torch.ones(4)
recorded, plain = {}, {}
for options in (0, 15, 30, 60):
    call = operator(options)
    given = (None,) * options
    plain[options] = microseconds(lambda: call(x, *given))
    y = x.clone().requires_grad_()
    recorded[options] = microseconds(lambda: call(y, *given))
    print(f"{options} optional arguments: {plain[options]:.0f} us a call, {recorded[options]:.0f} us with gradients")

more = {n: recorded[n] - recorded[0] for n in (15, 30, 60)}
assert more[60] > 2.8 * more[30] > 2.8 * 2.8 * more[15]  # linear would be 2 each time
assert plain[60] - plain[0] < more[60] / 5
PY
