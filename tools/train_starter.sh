#!/usr/bin/env bash
# Make the starter's weights from its data: hours on two CPU cores. Run it again after an
# interruption, and it goes on.
# usage: tools/train_starter.sh SOURCES OUTPUT_DIR [KEY VALUE ...]
#   SOURCES     holds torino_liver/ and guo2019_liver/ as datasets/README.md says
#   KEY VALUE   changes of configs/liver/starter.yaml, for instance SOLVER.MAX_ITER 100
set -euo pipefail
usage="usage: tools/train_starter.sh SOURCES OUTPUT_DIR [KEY VALUE ...]"
sources=$(realpath "${1:?$usage}")
output=$(realpath -m "${2:?$usage}")
shift 2
cd "$(dirname "$0")/.."
export DETECTRON2_DATASETS=$output/datasets
step() { printf '\n== %s\n' "$*"; }

step "1/5  Expert outlines, the 2019 authors' tiles and synthetic tissue as COCO files"
prepared=$DETECTRON2_DATASETS/.prepared
if [ ! -e "$prepared" ]; then
    python datasets/prepare_torino.py --source "$sources/torino_liver" --mpp 0.5 \
        --output "$DETECTRON2_DATASETS/liver_torino"
    python datasets/prepare_guo2019.py --source "$sources/guo2019_liver" --mpp 0.25 \
        --output "$DETECTRON2_DATASETS/liver_guo2019"
    python datasets/make_synthetic_liver.py --train 800 --size 416 --seed 1 --workers 2 \
        --output "$DETECTRON2_DATASETS/liver_synthetic"
    python datasets/make_synthetic_liver.py --train 260 --size 832 --mpp 0.25 --seed 2 --workers 2 \
        --output "$DETECTRON2_DATASETS/liver_synthetic_40x"
    touch "$prepared"
fi

# --resume goes on where a run stopped.
step "2/5  Training from random weights, in $output/pretraining"
python tools/train_net.py --config-file configs/liver/starter_pretraining.yaml --resume \
    SEED 1 OUTPUT_DIR "$output/pretraining" "$@"

step "3/5  Training with the dense branch, in $output/training"
python tools/train_net.py --config-file configs/liver/starter.yaml --resume \
    SEED 3 OUTPUT_DIR "$output/training" MODEL.WEIGHTS "$output/pretraining/model_final.pth" "$@"

step "4/5  The score from which to keep a droplet, chosen on the training tiles"
python tools/train_net.py --config-file configs/liver/starter.yaml --eval-only \
    MODEL.WEIGHTS "$output/training/model_final.pth" OUTPUT_DIR "$output/calibration" \
    DATASETS.TEST "('liver_torino_train',)" "$@"
python tools/evaluate.py --score-threshold 0.4 0.45 0.5 0.55 0.6 0.65 0.7 \
    --ground-truth "$DETECTRON2_DATASETS/liver_torino/annotations/instances_train.json" \
    --predictions "$output/calibration/inference/predictions.json"

step "5/5  The weights alone, in half precision, with the ranges of the features for 8-bit inference"
python tools/export_weights.py "$output/training/model_final.pth" --output "$output/liver_starter.pth" \
    --config-file "$output/training/config.yaml"
