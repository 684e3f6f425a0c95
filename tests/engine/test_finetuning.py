"""What trains, what judges, for how long."""

import json

import pytest
import yaml

from steatosis_d2.engine.finetuning import (
    describe_gain,
    is_better,
    plan_schedule,
    split_for_judging,
    write_config,
)
from steatosis_d2.errors import InputError
from steatosis_d2.model_zoo import get_config, get_config_file


def coco(n_images, *, objects_each, crowds_each=0, side_px=384):
    images = [
        {"id": i, "file_name": f"{i}.png", "height": side_px, "width": side_px}
        for i in range(1, n_images + 1)
    ]
    annotations = [
        {"id": len(images) * j + i, "image_id": i, "iscrowd": int(j >= objects_each)}
        for i in range(1, n_images + 1)
        for j in range(objects_each + crowds_each)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"name": "droplet"}]}


def split(content, **changes):
    settings = {
        "case_of": lambda image: image["file_name"],
        "judging_share": 0.25,
        "source": "a.json",
    }
    return split_for_judging(content, **settings | changes)


def test_cases_stay_together_and_a_quarter_judges():
    content = coco(20, objects_each=20)
    halves = split(content, case_of=lambda image: str(image["id"] // 5))
    cases = [{image["id"] // 5 for image in halves[name]["images"]} for name in ("train", "val")]
    assert not cases[0] & cases[1]
    assert len(halves["train"]["images"]) + len(halves["val"]["images"]) == 20
    assert [len(split(content)[name]["images"]) for name in ("train", "val")] == [15, 5]
    kept = {one["image_id"] for one in halves["val"]["annotations"]}
    assert kept == {image["id"] for image in halves["val"]["images"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco(1, objects_each=500), "of 1 case; expected two or more"),
        (coco(8, objects_each=3), "6 images with 18 outlined objects to train from"),
        (coco(8, objects_each=9, crowds_each=30), "2 images with 18 outlined objects to judge by"),
    ],
)
def test_too_little_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        split(content)


def test_schedule_follows_what_there_is_to_see():
    cfg = get_config("liver/starter.yaml")
    tiles = coco(20, objects_each=0)["images"]
    assert plan_schedule(tiles, cfg).steps == 100  # 20 crops, 20 times, 4 a step
    twice = [tile | {"mpp": 2 * cfg.INPUT.MPP} for tile in tiles]
    assert plan_schedule(twice, cfg).steps == 400
    assert plan_schedule(tiles[:1], cfg).steps == 60
    assert plan_schedule(twice * 20, cfg).steps == 2000
    chosen = plan_schedule(tiles, cfg, steps=7)
    assert (chosen.steps, chosen.judged_every) == (7, 1)


def test_config_says_what_differs_and_is_understood(tmp_path):
    cfg = get_config("liver/starter.yaml")
    write_config(
        tmp_path / "finetune.yaml",
        base=get_config_file("liver/starter.yaml"),
        weights="w.pth",
        schedule=plan_schedule(coco(20, objects_each=0)["images"], cfg),
        datasets={"train": "coco:a.json:images", "val": "coco:b.json:images"},
        overrides=["SOLVER.BASE_LR", "0.002", "INPUT.CROP.SIZE", "[64, 64]"],
        seed=5,
        output=tmp_path / "training",
    )
    assert len(yaml.safe_load((tmp_path / "finetune.yaml").read_text())) < 10
    made = get_config(str(tmp_path / "finetune.yaml"))
    assert (made.SOLVER.BASE_LR, made.SOLVER.MAX_ITER, made.SEED) == (0.002, 100, 5)
    [stage] = made.SOLVER.STAGES
    assert (stage["iterations"], stage["steps"], stage["freeze_norm"]) == (100, [75], True)
    assert tuple(made.DATASETS.TRAIN) == ("coco:a.json:images",)
    assert tuple(made.INPUT.CROP.SIZE) == (64, 64)
    assert made.MODEL.RESNETS.DEPTH == 41
    assert made.MODEL.WEIGHTS == "w.pth"


def test_gain_is_a_table_of_what_can_be_measured():
    before = {"instances": {"f1": 0.5, "pq": 0.4}, "clinical": {"count_error": 3.0}}
    after = json.loads(json.dumps(before)) | {"instances": {"f1": 0.75, "pq": 0.6}}
    lines = describe_gain(before, after).splitlines()
    assert lines[1].split() == ["F1@0.5", "0.500", "0.750"]
    assert len(lines) == 4
    assert is_better(before, after)
    assert not is_better(after, after)
