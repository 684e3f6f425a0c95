#!/usr/bin/env bash
# A paper's table of networks, again: prepare the data, train each network by one recipe, measure
# all of them, write the table. Run it again after an interruption, and it goes on.
# usage: BUDGET=full|cpu|smoke tools/reproduce_table1.sh liver|nucleus OUTPUT_DIR SOURCES [KEY VALUE ...]
#   liver      ResNet-41, -50 and -65 on liver tiles: table 1 of Guo et al. 2019
#   nucleus    ResNet-50 and -101 on nuclei: table 1 of Johnson 2018
#   BUDGET     full   the papers' recipes, from COCO weights: needs a GPU
#              cpu    from random weights, half the channels: both tables in a night on two cores
#              smoke  tiny networks on drawn tiles, that learn nothing: a minute, without SOURCES
#   SOURCES    holds torino_liver/, guo2019_liver/ or both, or bbbc038/stage1_train.zip, as
#              datasets/README.md says
#   KEY VALUE  changes of every network's config, for instance SOLVER.ACCUMULATE 2
# It also reads SEEDS, one training of each network for each ("1 2 3"), and GPUS, how many to use.
set -euo pipefail
usage="usage: BUDGET=full|cpu|smoke tools/reproduce_table1.sh liver|nucleus OUTPUT_DIR SOURCES [KEY VALUE ...]"
fail() { echo "error: $*" >&2; exit 1; }

root=$(realpath "$(dirname "$0")/..")
within_root() { realpath -ms --relative-base="$root" "$1"; }  # short commands in the table

table=${1:?$usage} output=$(within_root "${2:?$usage}") budget=${BUDGET:?$usage}
typed=("BUDGET=$budget" tools/reproduce_table1.sh "$@")
shift 2

case $table in
liver)   depths="41 50 65" seeds="1 2 3" mpp=0.25 ;;  # tiles of 20x enlarged by two, of 40x not
nucleus) depths="50 101"   seeds="1 2"   mpp=0.0 ;;
*) fail "the table is '$table'; expected liver or nucleus" ;;
esac

# What a budget changes in the papers' configs. At half the channels a network has a quarter of
# the arithmetic. Without COCO's weights it needs batch normalisation, and no stage of heads alone.
case $budget in
full) recipe=() ;;
cpu) recipe=(
    MODEL.WEIGHTS ""
    MODEL.RESNETS.STEM_OUT_CHANNELS 32 MODEL.RESNETS.RES2_OUT_CHANNELS 128
    MODEL.RESNETS.WIDTH_PER_GROUP 32 MODEL.RESNETS.NORM BN MODEL.RESNETS.STRIDE_IN_1X1 False
    MODEL.FPN.OUT_CHANNELS 128 MODEL.FPN.NORM BN
    MODEL.ROI_BOX_HEAD.FC_DIM 512 MODEL.ROI_MASK_HEAD.CONV_DIM 128
    INPUT.MPP $mpp INPUT.CROP.SIZE "[256, 256]"
    SOLVER.IMS_PER_BATCH 4 SOLVER.BASE_LR 0.02 SOLVER.WARMUP_ITERS 100 SOLVER.AMP.ENABLED True
    SOLVER.STAGES "[{'train': 'all', 'iterations': 1000, 'steps': [800, 950]}]"
    SOLVER.CHECKPOINT_PERIOD 200
) ;;
smoke)
    depths=${depths% 65} seeds=1
    recipe=(
        MODEL.WEIGHTS "" MODEL.DEVICE cpu
        MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.RES2_OUT_CHANNELS 32
        MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.RESNETS.NORM BN
        MODEL.FPN.OUT_CHANNELS 16 MODEL.FPN.NORM BN
        MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.ROI_MASK_HEAD.CONV_DIM 16
        INPUT.SCALE 1.0 INPUT.CROP.SIZE "[96, 96]" DATALOADER.NUM_WORKERS 0
        SOLVER.IMS_PER_BATCH 2 SOLVER.BASE_LR 0.01
        MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 TEST.DETECTIONS_PER_IMAGE 50
        SOLVER.STAGES "[{'train': 'all', 'iterations': 8}]" SOLVER.CHECKPOINT_PERIOD 4
    ) ;;
*) fail "BUDGET is '$budget'; expected full, cpu or smoke" ;;
esac
sources=
if [ "$budget" != smoke ]; then
    sources=$(within_root "${1:?$usage}")
    shift
fi
recipe+=("$@")

cd "$root"
export DETECTRON2_DATASETS=$output/datasets
mkdir -p "$output"
# Held by the trainings as well, so that none goes on beside a second run.
exec 9> "$output/.lock"
flock --timeout 20 9 || fail "another run is at work in '$output'; wait for it, or end it"
settings=$(printf '%s\n' "$table" "$sources" "${recipe[@]}")
if [ "$(cat "$output/settings.txt" 2> /dev/null || echo "$settings")" != "$settings" ]; then
    fail "'$output' was begun with other settings, which are in its settings.txt; give the same, or another folder"
fi

once() { # DONE_FILE TITLE COMMAND ...: unless it has succeeded before; the file names the machine
    [ -e "$1" ] && return
    printf '\n== %s\n' "$2"
    "${@:3}"
    describe_machine > "$1"
}

describe_machine() {
    echo "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), cores: $(nproc)"
    if command -v nvidia-smi > /dev/null; then
        nvidia-smi --query-gpu=name --format=csv,noheader || true  # there, but without a GPU
    fi
}

names_train=() names_test=()
use_dataset() { # NAME TEST_SPLIT SCRIPT OPTIONS ...
    names_train+=("$1_train") names_test+=("$1_$2")
    once "$DETECTRON2_DATASETS/$1/done" "Data: $1" \
        python "datasets/$3" --output "$DETECTRON2_DATASETS/$1" "${@:4}"
}

as_tuple() { printf '('; printf "'%s'," "$@"; printf ')'; }

train() { # DEPTH SEED
    local run=$output/R-$1/seed-$2
    local command=(
        python tools/train_net.py --config-file "configs/$table/mask_rcnn_R_$1_FPN.yaml" --resume
        --num-gpus "${GPUS:-1}" "${recipe[@]}" "${evaluation[@]}"
        DATASETS.TRAIN "$(as_tuple "${names_train[@]}")" SEED "$2" OUTPUT_DIR "$run"
    )
    mkdir -p "$run"
    printf '%s\n' "${command[@]}" > "$run/command.txt"
    "${command[@]}"
    rm -f "$run"/model_[0-9]*.pth  # checkpoints on the way to model_final.pth
}

case $table-$budget in
*-smoke)
    use_dataset liver_synthetic val make_synthetic_liver.py --train 6 --val 4 --test 0 --size 160
    ;;
nucleus-*)
    use_dataset nucleus_bbbc038 val prepare_bbbc038.py --source "$sources/bbbc038/stage1_train.zip"
    ;;
liver-*)
    if [ -d "$sources/torino_liver" ]; then
        use_dataset liver_torino val prepare_torino.py --source "$sources/torino_liver" --mpp 0.5
    fi
    if [ -d "$sources/guo2019_liver" ]; then
        use_dataset liver_guo2019 test prepare_guo2019.py --source "$sources/guo2019_liver" --mpp 0.25
    fi
    [ ${#names_test[@]} -gt 0 ] || fail "'$sources' has neither torino_liver/ nor guo2019_liver/ in it"
    ;;
esac

echo "$settings" > "$output/settings.txt"
mkdir -p "$output/results"
printf '%s\n' "${typed[@]}" > "$output/results/command.txt"

# Measured once, with the last weights: so nothing is chosen on the images that are measured.
evaluation=(TEST.EVAL_PERIOD 0 DATASETS.TEST "$(as_tuple "${names_test[@]}")")
for seed in ${SEEDS:-$seeds}; do
    for depth in $depths; do
        once "$output/R-$depth/seed-$seed/done" "ResNet-$depth, seed $seed" train "$depth" "$seed"
    done
done

once "$output/starter/done" "The weights that ship" \
    python tools/train_net.py --config-file "configs/$table/starter.yaml" --eval-only \
    "${evaluation[@]}" DATALOADER.NUM_WORKERS 0 OUTPUT_DIR "$output/starter"
if [ "$table" = liver ]; then
    for name in "${names_test[@]}"; do
        folder=$DETECTRON2_DATASETS/${name%_*}
        once "$output/classical/$name/done" "Without a network, on $name" \
            python tools/compare_labels.py --images "$folder/images" \
            --ground-truth "$folder/annotations/instances_${name##*_}.json" \
            --output "$output/classical/$name"
    done
fi

printf '\n== The table\n'
python tools/measure_table1.py "$table" "$output"
python tools/table1.py "$table" "$output/results" --output "$output"
