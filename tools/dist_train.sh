#!/usr/bin/env bash
# Trains on several GPUs of one machine: tools/dist_train.sh CONFIG GPUS [options of train.py]
set -euo pipefail
if [ $# -lt 2 ]; then
    echo 'usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]' >&2
    exit 2
fi
config=$1 gpus=$2
shift 2
exec python -m torch.distributed.run --standalone --nproc_per_node="$gpus" \
    "$(dirname "${BASH_SOURCE[0]}")/train.py" "$config" --launcher pytorch "$@"
