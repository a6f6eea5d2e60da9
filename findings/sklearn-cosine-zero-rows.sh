#!/usr/bin/env bash
# scikit-learn 1.9.1: the cosine distance of rows of zeros depends on whether the very same array object is given
# twice.
#
# Done: cosine_distances, and the neighbours NearestNeighbors(metric="cosine") finds, for rows two of which are zeros;
# once with X itself, once with a copy of X.
# Expected: the same numbers. The documentation of cosine_distances: "Cosine distance is defined as 1.0 minus the
# cosine similarity" and "Returns the cosine distance between samples in X and Y"; nothing there makes the values
# depend on an object's identity, and equal rows have equal distances.
# Seen: the diagonal alone is set to 0, also where the formula gives 1: a row of zeros is at 0 from itself and at 1
# from an equal row. Given a copy, it is at 1 from itself too, and both rows of zeros have the same nearest neighbour.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
venv/bin/python - <<'EOF'
import numpy as np
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import NearestNeighbors

x = np.array([[0.0, 0], [0, 0], [1, 0], [0, 2]])
index = NearestNeighbors(n_neighbors=1, metric="cosine").fit(x)
same, copied = cosine_distances(x, x), cosine_distances(x, x.copy())
print(f"distances of the first row of zeros, X itself: {same[0].tolist()}; X and a copy: {copied[0].tolist()}")
nearest = {name: index.kneighbors(rows) for name, rows in (("itself", x), ("a copy", x.copy()))}
for name, (distances, places) in nearest.items():
    print(f"nearest by X given as {name}: rows {places.ravel().tolist()} at {distances.ravel().tolist()}")
if (
    same[0].tolist() != [0, 1, 1, 1]
    or copied[0].tolist() != [1, 1, 1, 1]
    or nearest["itself"][0].ravel().tolist() != [0, 0, 0, 0]
    or nearest["a copy"][0].ravel().tolist() != [1, 1, 0, 0]
):
    raise SystemExit("the behaviour has changed")
EOF
