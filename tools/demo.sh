#!/usr/bin/env bash
# Synthetic tissue, a short training on the CPU, an evaluation and a picture: what `make demo` runs.
# usage: tools/demo.sh OUTPUT_DIR
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:?usage: tools/demo.sh OUTPUT_DIR}
data=$output/liver_synthetic
step() { printf '\n== %s\n' "$*"; }

step "1/4  Synthetic liver tiles, whose droplets are known exactly, as COCO files: $data"
python datasets/make_synthetic_liver.py --output "$data" --train 48 --val 4 --test 4 --size 256

step "2/4  A short training of the starter network on the CPU"
python tools/train_net.py --config-file configs/liver/starter.yaml \
    DATASETS.TRAIN "('coco:$data/annotations/instances_train.json:$data/images',)" \
    DATASETS.TEST "('coco:$data/annotations/instances_val.json:$data/images',)" \
    INPUT.CROP.SIZE "[256, 256]" INPUT.MPP 0.5 INPUT.SCALE_JITTER "(0.9, 1.2)" \
    SOLVER.MAX_ITER 240 SOLVER.STEPS "(200,)" SOLVER.WARMUP_ITERS 20 SOLVER.EMA_DECAY 0.0 \
    TEST.EVAL_PERIOD 0 MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.5 TEST.VIEWS 1 \
    OUTPUT_DIR "$output/training" SEED 1

step "3/4  Pictures with outlines: found in green, true in yellow"
python tools/visualize_predictions.py --images "$data/images" \
    --predictions "$output/training/inference/predictions.json" \
    --ground-truth "$data/annotations/instances_val.json" --output "$output/pictures"

step "4/4  The figures once more, from the two COCO files alone"
python tools/evaluate.py --ground-truth "$data/annotations/instances_val.json" \
    --predictions "$output/training/inference/predictions.json" --score-threshold 0.5 \
    --output "$output/metrics.json"

step "Done: look at $output/pictures, and at the curves with: tensorboard --logdir $output"
