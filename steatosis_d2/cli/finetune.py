"""
Make a network better with screened labels, and say by how much.

A quarter of the cases is kept for judging. The others train, for a time that follows from how much
there is; training stops early where it brings nothing more. Areas to ignore are neither fat nor
background. In the end the new weights and those before are compared on the cases kept.

Of slides, the squares train in which every label is judged; they are cut out as tiles.

Underneath it is `steatosis-d2 train`: the lines that it runs are shown, and its config stays in the
output folder.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from steatosis_d2.cli.option_types import positive_integer, share
from steatosis_d2.data.coco import DROPLET, read_coco, take_category, write_coco
from steatosis_d2.data.sources import compile_case_pattern
from steatosis_d2.errors import InputError
from steatosis_d2.files import drop_suffix
from steatosis_d2.install_detectron2 import require_detectron2
from steatosis_d2.screening.labels import REJECTED, find_images, is_slide, read_labels
from steatosis_d2.screening.squares import cut_slides

CONFIG = "liver/starter.yaml"
IGNORE, BACKGROUND = "ignore", "background"
EXAMPLES = """
examples:
  %(prog)s screened.json --images regions/images --output finetuned
  go on after an interruption:
    %(prog)s screened.json --images regions/images --output finetuned --resume
  slides that were reviewed on the page; what was rejected there is no fat:
    %(prog)s screened.json --images slides --output finetuned --rejected background
  tiles called <patient>_<number>.png:
    %(prog)s screened.json --images tiles --output finetuned --case-pattern '(.+)_'
"""


def run(arguments):
    """Split, train, compare."""
    require_detectron2()
    # They take seconds to import, which help does without.
    from steatosis_d2.engine import finetuning
    from steatosis_d2.model_zoo import get_config, get_config_file, get_weights

    output = arguments.output
    if not arguments.resume and (output / "training").exists():
        raise InputError(
            f"'{output}' holds a training already. Add --resume to go on with it, or choose "
            "another --output."
        )
    content, images = read_screened(arguments)
    overrides = [word for pair in arguments.set or () for word in pair]
    base = get_config_file(arguments.config_file)
    cfg = get_config(base, overrides)
    halves = finetuning.split_for_judging(
        content,
        case_of=case_finder(arguments.case_pattern),
        judging_share=arguments.judging_share,
        source=arguments.labels,
    )
    schedule = finetuning.plan_schedule(halves["train"]["images"], cfg, steps=arguments.steps)
    config, weights = output / "finetune.yaml", output / "weights.pth"
    finetuning.write_config(
        config,
        base=base,
        weights=arguments.weights or get_weights(arguments.config_file),
        schedule=schedule,
        datasets=write_halves(halves, output / "data", images),
        overrides=overrides,
        seed=arguments.seed,
        output=output / "training",
    )
    for name, verb in (("train", "train"), ("val", "judge")):
        n_objects = finetuning.count_objects(halves[name])
        print(f"{len(halves[name]['images'])} images with {n_objects} objects {verb}.")
    print(
        f"At most {schedule.steps} steps of {cfg.SOLVER.IMS_PER_BATCH} crops, judged every "
        f"{schedule.judged_every}; it ends where two judgements in turn are no better."
    )
    before = measure(config, output / "before")
    run_aloud("train", "--config-file", config, *(["--resume"] if arguments.resume else []))
    best = output / "training" / "model_best.pth"
    checkpoint = best if best.is_file() else output / "training" / "model_final.pth"
    run_aloud("export", checkpoint, "--output", weights, "--config-file", config)
    after = measure(config, output / "after", "MODEL.WEIGHTS", weights)
    report(before, after, arguments, weights)


def build_parser(prog):
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("labels", metavar="SCREENED.json", help="COCO file of screened labels")
    parser.add_argument(
        "--images", required=True, type=Path, metavar="DIR", help="folder of the images"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for all that is written"
    )
    parser.add_argument(
        "--config-file",
        default=CONFIG,
        metavar="C",
        help="config of the network, by path or name in configs/ (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        metavar="W",
        help="checkpoint to begin with; default: what ships for the config",
    )
    parser.add_argument(
        "--steps",
        type=positive_integer,
        metavar="N",
        help="of training, at most; default: by how much there is to learn from",
    )
    parser.add_argument(
        "--judging-share",
        type=share,
        default=0.25,
        metavar="P",
        help="of the cases, kept for judging (default: %(default)s)",
    )
    parser.add_argument(
        "--case-pattern",
        metavar="REGEX",
        help="its first group, in an image's name, is the case that the image is of; default: what "
        "the COCO file says, or else each image by itself",
    )
    parser.add_argument(
        "--rejected",
        choices=(IGNORE, BACKGROUND),
        default=IGNORE,
        help="what was rejected is neither fat nor background, or it is background: so the "
        "network learns to leave vessels alone (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="(default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        metavar=("KEY", "VALUE"),
        help="change a key of the config, for instance --set SOLVER.BASE_LR 0.005; repeatable",
    )
    return parser


def read_screened(arguments):
    """Content of a COCO file of what trains and judges, and the folder of its images."""
    content, label_file = read_coco(arguments.labels), read_labels(arguments.labels)
    paths = find_images(label_file, arguments.images)
    images = arguments.images
    if any(is_slide(path, label_file.images[image_id]) for image_id, path in paths.items()):
        images = arguments.output / "data" / "images"
        tiles, annotations = cut_slides(content, label_file, paths, images)
        content = content | {"images": tiles, "annotations": annotations}
        print(f"{len(tiles)} tiles, of squares that are judged to the end: {images}")
    if len(label_file.categories) > 1:
        content = take_category(content, DROPLET)
    if arguments.rejected == BACKGROUND:
        content["annotations"] = [
            one for one in content["annotations"] if one.get("screening") != REJECTED
        ]
    return content, images


def case_finder(pattern):
    """A function that gives the case (str) of an image's COCO record."""
    if pattern is None:
        return lambda image: str(image.get("case", drop_suffix(Path(image["file_name"])).name))
    compiled = compile_case_pattern(pattern)

    def find(image):
        match = compiled.search(image["file_name"])
        if match is None or not compiled.groups:
            raise InputError(
                f"--case-pattern '{pattern}' finds no case in the name '{image['file_name']}'; "
                "expected a group that holds it, like '(.+)_'."
            )
        return match[1]

    return find


def write_halves(halves, folder, images):
    """Write both as COCO files; gives the name of each as a data set."""
    names = {}
    for name, content in halves.items():
        path = folder.resolve() / f"instances_{name}.json"
        categories = content.get("categories") or [{"name": DROPLET}]
        write_coco(path, content["images"], content["annotations"], category=categories[0]["name"])
        names[name] = f"coco:{path}:{images.resolve()}"
    return names


def measure(config, output, *overrides):
    """Figures of a network on the images that judge."""
    run_aloud("train", "--config-file", config, "--eval-only", *overrides, "OUTPUT_DIR", output)
    return json.loads((output / "inference" / "metrics.json").read_text(encoding="utf-8"))


def run_aloud(*words):
    """Run one of our own commands, and show the line."""
    line = [str(word) for word in words]
    print(f"\n$ steatosis-d2 {shlex.join(line)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "steatosis_d2", *line], check=False)
    if done.returncode:
        raise InputError(f"'steatosis-d2 {words[0]}' ended with an error, which it tells above.")


def report(before, after, arguments, weights):
    """What it brought, and how to use it."""
    from steatosis_d2.engine.finetuning import describe_gain, is_better

    print(f"\nOn the images that were kept for judging:\n\n{describe_gain(before, after)}\n")
    if not is_better(before, after):
        print("It is no better. Keep the weights that you had; more screened images may help.")
        return
    print("These images also chose when to stop, so new ones will show a little less.")
    chosen = "" if arguments.config_file == CONFIG else f" --config-file {arguments.config_file}"
    print(f"\nUse it\n  steatosis-d2 segment SLIDE --output results{chosen} --weights {weights}")
