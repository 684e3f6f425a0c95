#!/usr/bin/env python
"""
A network learns a stain that it has never seen: from the weights that ship, on 40 small tiles.

`make demo-train` runs it, in about two minutes. The tiles are synthetic, stained with toluidine
blue; the weights that ship know hematoxylin and eosin alone.

example:
  python tools/demo_train.py output/demo_train
"""

import argparse
import json
import sys
from pathlib import Path

from demo import LOG, open_log, run

CONFIG = "liver/starter.yaml"
STEPS = 60


def main():
    """Draw tiles, measure the weights that ship on them, fine-tune, measure again."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, metavar="DIR", help="folder for all that is written")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    tiles, weights = output / "tiles", output / "training" / "model_final.pth"
    train, val = (
        f"('coco:{tiles}/annotations/instances_{split}.json:{tiles}/images',)"
        for split in ("train", "val")
    )
    with open_log(output) as log:
        print("\n1/4  Draw 56 tiles in a stain that the network has not seen")
        run(
            "prepare synthetic", "--output", tiles, "--stain", "toluidine-blue",
            "--train", 40, "--val", 16, "--test", 0, "--size", 256, log=log,
        )  # fmt: skip
        print("\n2/4  How good is the network that ships?")
        before = measure(output / "before", val, log=log)
        print(f"\n3/4  Train it on 40 of them, {STEPS} steps")
        run(
            "train", "--config-file", CONFIG, "DATASETS.TRAIN", train, "DATASETS.TEST", val,
            "MODEL.WEIGHTS", f"steatosis-d2://{CONFIG}", "SOLVER.BASE_LR", 0.01,
            "SOLVER.MAX_ITER", STEPS, "SOLVER.STEPS", f"({STEPS * 3 // 4},)",
            "SOLVER.WARMUP_ITERS", 10, "SOLVER.EMA_DECAY", 0.9, "INPUT.CROP.SIZE", "(256,256)",
            "TEST.EVAL_PERIOD", 0, "TEST.PICTURES", 0, "SEED", 1,
            "OUTPUT_DIR", output / "training", log=log,
        )  # fmt: skip
        print("\n4/4  And now?")
        after = measure(output / "after", val, "MODEL.WEIGHTS", weights, log=log)
    print(describe(before, after, weights=weights))
    if after["f1"] <= before["f1"]:
        sys.exit(f"error: training made it no better. Something is not right; see {output / LOG}.")


def measure(output, tiles, *options, log):
    """Figures of single droplets on the tiles that are not trained on."""
    run(
        "train", "--config-file", CONFIG, "--eval-only", "DATASETS.TEST", tiles, *options,
        "OUTPUT_DIR", output, log=log,
    )  # fmt: skip
    return json.loads((output / "inference" / "metrics.json").read_text())["instances"]


def describe(before, after, *, weights):
    """The last lines, for somebody who has never seen this."""
    rows = [
        f"  {name:22}{figures['precision']:9.2f}{figures['recall']:9.2f}{figures['f1']:9.2f}"
        for name, figures in (("as it ships", before), ("after the training", after))
    ]
    return "\n".join(
        [
            f"\nOn 16 other tiles, with {before['truths']} droplets:\n",
            f"  {'':22}precision   recall       F1",
            *rows,
            "\nUse it",
            f"  steatosis-d2 segment YOUR_SLIDE.svs --output results --weights {weights}",
            "\nWith tiles of your own: docs/train.md\n",
        ]
    )


if __name__ == "__main__":
    main()
