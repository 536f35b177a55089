#!/usr/bin/env bash
# What an installed wheel shows without torch, for `make release` and cibuildwheel: the doctor, a
# prediction by a shipped model, tests of what all commands use. Runs the bhvit-seg and python on the PATH.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$(mktemp -d)"
bhvit-seg doctor
bhvit-seg predict "$repository/docs/images/buildings.jpg" --model buildings-drone --out predictions
python -m pytest -q -p no:cacheprovider "$repository"/tests/test_{errors,fileio,shipped}.py
