#!/usr/bin/env bash
# jax 0.10.2: lax.top_k does not take 0.0 and -0.0 for equal, nor one NaN for another.
#
# Done: lax.top_k of zeros of both signs, and of numbers with a NaN of either sign, on CPU.
# Expected: the documentation of jax.lax.top_k: "`values[..., i, ...]` is the `i`-th largest entry in `operand`" and
# "If two elements are equal, the lower-index element appears first". In IEEE 754, as in jax.numpy, -0.0 == 0.0, so
# the first place is 0. jax.lax.sort, by its documentation, treats -0.0 and 0.0 as equivalent and sorts NaN to the
# end.
# Seen: of (-0.0, 0.0) the second comes first; a NaN is the largest entry and one with its sign set the least, below
# -inf. So what an equal pair of distances or scores gives depends on how the zero came about.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu venv/bin/python - <<'EOF'
import jax
import jax.numpy as jnp

nan, inf = float("nan"), float("inf")
firsts = []
for x in ([-0.0, 0.0], [0.0, -0.0], [nan, inf], [-nan, -inf]):
    x = jnp.array(x)
    firsts.append(jax.lax.top_k(x, 1)[1].item())
    by_sort = jnp.argsort(x, stable=True, descending=True)[0].item()
    signs = ["-" if sign else "+" for sign in jnp.signbit(x).tolist()]
    print(f"{x.tolist()}, signs {signs}: the largest is at {firsts[-1]} by top_k, at {by_sort} by a stable sort")
promised = "If two elements are equal, the lower-index element appears first" in jax.lax.top_k.__doc__
if firsts != [1, 0, 0, 1] or jnp.array(-0.0) != 0.0 or not promised:
    raise SystemExit("the behaviour has changed")
EOF
