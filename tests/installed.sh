#!/usr/bin/env bash
# What an installed wheel shows without torch, for `make release` and cibuildwheel: the doctor, a
# prediction by a shipped model, tests of commands. Runs the bhvit-seg and python on the PATH.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$(mktemp -d)"
bhvit-seg doctor
bhvit-seg predict "$repository/docs/images/buildings.jpg" --model buildings-drone --out predictions
