#!/usr/bin/env bash
# Tests on several GPUs of one machine: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]
set -euo pipefail
if [ $# -lt 3 ]; then
    echo 'usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]' >&2
    exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
exec python -m torch.distributed.run --standalone --nproc_per_node="$gpus" \
    "$(dirname "${BASH_SOURCE[0]}")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
