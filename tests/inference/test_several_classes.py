"""A network of several classes: every instance has its name, and one class alone is counted."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.modeling import build_model
from detectron2.structures import Instances
from PIL import Image

from steatosis_d2 import load_model, segment, segment_image
from steatosis_d2.data.coco import annotation_record, category_names, image_record, write_coco
from steatosis_d2.data.mapper import InstanceMapper
from steatosis_d2.engine.trainer import check_evaluation
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.detectron2_evaluator import SteatosisEvaluator
from steatosis_d2.inference.merge import BorderMerger
from steatosis_d2.inference.predictor import MaskRCNNPredictor
from steatosis_d2.inference.tiles import plan_tiles
from steatosis_d2.instances.geojson import class_name, read_features
from steatosis_d2.instances.instance import Instance
from steatosis_d2.instances.packing import pack_instances, unpack_instances
from steatosis_d2.instances.rle import decode_mask, encode_mask
from steatosis_d2.measurement.filters import find_reasons, parse_rules
from steatosis_d2.measurement.morphology import measure_instances
from steatosis_d2.measurement.summary import LARGE_DIAMETER_UM, summarise
from steatosis_d2.model_zoo import get_config

NAMES = ("vessel", "droplet")
TWO_CLASSES = ["MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.CATEGORIES", str(list(NAMES))]


def square(left, side, class_index):
    return Instance(np.ones((side, side), bool), 0, left, 0.9, class_index=class_index)


@pytest.fixture(scope="module")
def network(slim_cfg, tmp_path_factory):
    """Config and weights of a random network that reports both classes."""
    cfg = slim_cfg.clone()
    cfg.merge_from_list([*TWO_CLASSES, "MODEL.WEIGHTS", ""])
    torch.manual_seed(1)
    model = build_model(cfg)
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.1)
    torch.nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=2)
    folder = tmp_path_factory.mktemp("two_classes")
    cfg.MODEL.WEIGHTS = str(folder / "weights.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.2
    (folder / "config.yaml").write_text(cfg.dump())
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    path = tmp_path_factory.mktemp("tile") / "tile.png"
    pixels = np.random.default_rng(0).integers(0, 160, (120, 160, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_every_output_names_the_class(network, tile, tmp_path):
    [result] = segment(tile, tmp_path / "out", mpp=0.5, model=str(network))
    found = [NAMES[one.class_index] for one in result.instances()]
    assert set(found) == set(NAMES)
    table = pd.read_parquet(tmp_path / "out" / "tile.parquet")
    assert table["category"].tolist() == found
    outlined = read_features(tmp_path / "out" / "tile.geojson.gz")
    assert [class_name(one.properties) for one in outlined] == found
    assert len({str(one.properties["classification"]["color"]) for one in outlined}) == 2
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    names = category_names(content)
    assert [names[one["category_id"]] for one in content["annotations"]] == found
    n_droplets = found.count("droplet")
    row = pd.read_csv(tmp_path / "out" / "summary.csv").iloc[0]
    assert row["droplets"] == n_droplets
    assert row["other_categories"] == f"vessel: {len(found) - n_droplets}"
    fat_um2 = table["area_um2"][table["category"] == "droplet"].sum()
    assert row["fat_area_mm2"] == pytest.approx(fat_um2 / 1e6, rel=1e-4)
    report = (tmp_path / "out" / "report.html").read_text()
    assert f"vessel: {len(found) - n_droplets}" in report
    assert content["info"]["model"]["categories"] == list(NAMES)


def test_an_image_in_memory_has_names_too(network, tile):
    found, table = segment_image(np.array(Image.open(tile)), mpp=0.5, model=load_model(network))
    assert table["category"].tolist() == [NAMES[one.class_index] for one in found]


def test_a_class_survives_packing():
    [[one]] = unpack_instances(pack_instances([[square(3, 4, 1)]]))
    assert one.class_index == 1


def merge_two_tiles(*, right_left, right_side):
    """A vessel that one tile reports, and a droplet there that the other does, merged."""
    tiles = plan_tiles(96, 64, tile_px=64, overlap_px=32)
    merger = BorderMerger(tiles, width=96, height=64)
    first = merger.add(tiles[0], [square(40, 18, 0)])
    droplet = square(right_left - tiles[1].left, right_side, 1)
    return first + merger.add(tiles[1], [droplet])


def test_one_object_of_two_names_is_one():
    [one] = merge_two_tiles(right_left=40, right_side=17)
    assert one.class_index == 0


def test_a_droplet_in_something_larger_stays():
    assert {one.class_index for one in merge_two_tiles(right_left=46, right_side=6)} == {0, 1}


def test_what_is_joined_keeps_its_class():
    tiles = plan_tiles(96, 64, tile_px=64, overlap_px=32)
    merger = BorderMerger(tiles, width=96, height=64)
    bar = np.ones((20, 32), bool)
    merger.add(tiles[0], [Instance(bar, 10, 32, 0.9, class_index=1)])
    [joined] = merger.add(tiles[1], [Instance(bar, 10, 0, 0.8, class_index=1)])
    assert joined.class_index == 1


def test_figures_and_averages_are_of_one_class():
    instances = [square(0, 4, 1), square(10, 6, 1), square(30, 60, 0)]
    table = measure_instances(instances, mpp=1.0, categories=NAMES)
    table["dropped_by"] = find_reasons(table, parse_rules(["area_um2<=2*mean"]))
    assert (table["dropped_by"] == "").all()  # with the vessel in the mean, or against it, not
    row = summarise(
        table,
        category="droplet",
        file_name="tile.png",
        shape_px=(100, 100),
        mpp=1.0,
        tissue_area_px=10_000,
        large_diameter_um=LARGE_DIAMETER_UM,
        calibration=None,
    )
    assert (row["droplets"], row["fat_area_px"]) == (2, 16 + 36)
    assert row["other_categories"] == "vessel: 1"


def test_classes_without_names_are_refused(network, slim_cfg):
    cfg = slim_cfg.clone()
    cfg.merge_from_list(["MODEL.ROI_HEADS.NUM_CLASSES", "2"])
    with pytest.raises(InputError, match=r"has 2 classes .* MODEL.CATEGORIES is \[\]; name them"):
        MaskRCNNPredictor(cfg)


@pytest.mark.parametrize("names", [["droplet"], ["vessel", "duct"], ["droplet", "droplet"]])
def test_wrong_names_are_refused(names):
    with pytest.raises(InputError, match=r"MODEL.CATEGORIES is .*a name for each of the 2 classes"):
        get_config("liver/starter.yaml", [*TWO_CLASSES[:3], str(names)])


@pytest.fixture
def two_categories(tmp_path):
    """A data set of one image, with a vessel and a droplet; as a name for DATASETS."""
    shape = (64, 96)
    vessel, droplet = np.zeros((2, *shape), bool)
    vessel[4:40, 4:40] = True
    droplet[20:32, 60:72] = True
    image_rgb = np.full((*shape, 3), (200, 120, 170), np.uint8)
    image_rgb[vessel | droplet] = 240
    Image.fromarray(image_rgb).save(tmp_path / "a.png")
    write_coco(
        tmp_path / "two.json",
        [image_record(1, "a.png", height=64, width=96)],
        [
            annotation_record(1, 1, encode_mask(vessel), category_id=3),
            annotation_record(2, 1, encode_mask(droplet), category_id=7),
        ],
        category=[{"id": 3, "name": "vessel"}, {"id": 7, "name": "droplet"}],
    )
    return f"coco:{tmp_path}/two.json:{tmp_path}"


def test_training_wants_the_names_of_the_data(two_categories):
    overrides = ["DATASETS.TEST", f"('{two_categories}',)"]
    check_evaluation(get_config("liver/starter.yaml", [*overrides, *TWO_CLASSES]))
    for names in ("[]", "['droplet', 'vessel']"):
        cfg = get_config("liver/starter.yaml", [*overrides, *TWO_CLASSES[:3], names])
        with pytest.raises(InputError, match=r"set MODEL.CATEGORIES \"\['vessel', 'droplet'\]\""):
            check_evaluation(cfg)


def test_each_category_is_evaluated_by_itself(two_categories, network, tmp_path):
    overrides = ["DATASETS.TEST", f"('{two_categories}',)"]
    cfg = get_config(str(network), overrides)
    [record] = DatasetCatalog.get(two_categories)
    [[image]] = build_detection_test_loader(
        cfg, two_categories, mapper=InstanceMapper(cfg, is_train=False), num_workers=0
    )
    evaluator = SteatosisEvaluator(two_categories, tmp_path, category="droplet")
    # A network that gives back the truth, the droplet first, as its second class
    masks = [decode_mask(one["segmentation"]) for one in record["annotations"]][::-1]
    found = Instances((64, 96))
    found.pred_masks = torch.from_numpy(np.array(masks, bool))
    found.scores, found.pred_classes = torch.tensor([0.9, 0.6]), torch.tensor([1, 1])
    evaluator.process([image], [{"instances": found}])
    results = evaluator.evaluate()
    droplets, vessels = results["instances"], results["instances of vessel"]
    assert (droplets["truths"], droplets["predictions"], droplets["true_positives"]) == (1, 2, 1)
    assert (vessels["truths"], vessels["predictions"]) == (1, 0)
    assert (tmp_path / "metrics_of_vessel.json").is_file()
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [one["category_id"] for one in content["annotations"]] == [7, 7]


def test_the_dense_branch_learns_fat_from_droplets_alone(two_categories):
    cfg = get_config("liver/starter.yaml", TWO_CLASSES)
    mapper = InstanceMapper(cfg, is_train=True, augmentations=[])
    get_config("liver/starter.yaml", ["DATASETS.TEST", f"('{two_categories}',)"])
    [record] = DatasetCatalog.get(two_categories)
    is_fat = mapper(record)["sem_seg"].numpy() == 1
    n_truths = is_fat.sum() / is_fat.size * 64 * 96
    assert n_truths == pytest.approx(12 * 12, rel=0.2)
