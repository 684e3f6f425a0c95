"""The paper's protocol, the field's metrics and a data set's averages, on cases worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import sparse
from skimage import draw

from steatosis_d2.data.coco import annotation_record, image_record, write_coco
from steatosis_d2.evaluation.coco_ap import coco_ap
from steatosis_d2.evaluation.figures import evaluate_pairs, measure_image
from steatosis_d2.evaluation.image_pairs import ImagePair, pair_images
from steatosis_d2.evaluation.matching import as_rles, match_instances, sparse_iou
from steatosis_d2.evaluation.metrics import (
    IOU_THRESHOLDS,
    aggregated_jaccard,
    count_overlap,
    dice_coefficient,
    dsb2018_score,
    fat_area_percent,
    instance_metrics,
    unite_masks,
)
from steatosis_d2.evaluation.paper_protocol import PAPER_METRICS, paper_metrics
from steatosis_d2.files import write_json
from steatosis_d2.instances.rle import decode_mask, encode_mask

HEIGHT, WIDTH = 20, 30


def bar(start, length, row=0):
    """A horizontal bar, one pixel high."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[row, start : start + length] = True
    return encode_mask(mask)


def disk(row, column, radius):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return encode_mask((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def pair(truths=(), predictions=(), scores=None, *, ignored=(), name="a.png"):
    scores = np.linspace(0.9, 0.1, len(predictions)) if scores is None else np.array(scores)
    return ImagePair(name, HEIGHT, WIDTH, list(truths), list(ignored), list(predictions), scores)


disks = st.builds(disk, st.floats(0, HEIGHT - 1), st.floats(0, WIDTH - 1), st.floats(0.5, 6))
pairs_of_disks = st.builds(pair, st.lists(disks, max_size=6), st.lists(disks, max_size=6))


# The protocol of Guo et al. 2019, by hand


def test_paper_metrics_of_a_hit_and_a_miss_after_it():
    # precision 1, 1/2 and padded 0 1 1/2 0, made non-increasing from the right: 1 1 1/2 0
    # recall 1/2, 1/2 and padded 0 1/2 1/2 1
    metrics = paper_metrics([0.8, 0.3], n_truths=2)
    assert metrics["paper_ap50"] == pytest.approx(0.5)
    assert metrics["paper_precision"] == pytest.approx(2.5 / 4)
    assert metrics["paper_recall"] == pytest.approx(2 / 4)
    assert metrics["paper_f1"] == pytest.approx(2 * 0.625 * 0.5 / 1.125)
    assert metrics["paper_jaccard"] == pytest.approx(1.1 / 4)


def test_paper_metrics_of_a_miss_before_a_hit():
    # precision 0, 1/2 padded and made non-increasing: 1/2 1/2 1/2 0; recall 0 0 1/2 1
    metrics = paper_metrics([0.3, 0.8], n_truths=2)
    assert metrics["paper_ap50"] == pytest.approx(0.25)
    assert metrics["paper_precision"] == pytest.approx(1.5 / 4)
    assert metrics["paper_recall"] == pytest.approx(1.5 / 4)


def test_paper_metrics_count_a_doubled_prediction_twice():
    # One truth taken twice: recall 0 1 2 1, precision 1 1 1 0
    metrics = paper_metrics([0.9, 0.9], n_truths=1)
    assert metrics["paper_ap50"] == pytest.approx(2)
    assert metrics["paper_recall"] == pytest.approx(1)


def test_paper_metrics_take_an_overlap_of_exactly_one_half_as_a_hit():
    assert paper_metrics([0.5], n_truths=1)["paper_ap50"] == 1
    assert paper_metrics([np.nextafter(0.5, 0)], n_truths=1)["paper_ap50"] == 0


def test_paper_metrics_of_misses_only():
    metrics = paper_metrics([0.2, 0.0], n_truths=3)
    # recall is padded with 0 in front and 1 behind, precision stays 0
    assert metrics["paper_recall"] == pytest.approx(1 / 4)
    assert (metrics["paper_ap50"], metrics["paper_precision"], metrics["paper_f1"]) == (0, 0, 0)


def restated_paper_ap50_and_f1(best_ious, n_truths):
    """The protocol once more, in plain loops over the ranked predictions."""
    precisions, recalls, hits = [0.0], [0.0], 0
    for rank, iou in enumerate(best_ious, 1):
        hits += iou >= 0.5
        precisions.append(hits / rank)
        recalls.append(hits / n_truths)
    precisions, recalls = [*precisions, 0.0], [*recalls, 1.0]
    precisions = [max(precisions[i:]) for i in range(len(precisions))]
    ap50 = sum(
        (recalls[i] - recalls[i - 1]) * precisions[i]
        for i in range(1, len(recalls))
        if recalls[i] != recalls[i - 1]
    )
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return ap50, 2 * precision * recall / (precision + recall)


@given(
    best_ious=st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1),
    n_truths=st.integers(1, 9),
)
def test_paper_metrics_equal_a_restatement_in_plain_loops(best_ious, n_truths):
    metrics = paper_metrics(best_ious, n_truths=n_truths)
    expected = restated_paper_ap50_and_f1(best_ious, n_truths)
    assert (metrics["paper_ap50"], metrics["paper_f1"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("best_ious", "n_truths", "expected"), [([], 0, 1), ([], 2, 0), ([0.0], 0, 0)]
)
def test_paper_metrics_without_truth_or_without_predictions(best_ious, n_truths, expected):
    metrics = paper_metrics(best_ious, n_truths=n_truths)
    assert metrics == dict.fromkeys(PAPER_METRICS, expected)


def test_equal_scores_keep_the_order_of_the_file():
    hit, miss = bar(0, 4), bar(20, 4)
    first = measure_image(pair([hit], [hit, miss], [0.5, 0.5]), score_threshold=0)
    last = measure_image(pair([hit], [miss, hit], [0.5, 0.5]), score_threshold=0)
    assert first.figures["paper_ap50"] == 1
    assert last.figures["paper_ap50"] == pytest.approx(0.5)


# The field's metrics, by hand


def test_instance_metrics_of_two_hits_a_miss_and_a_false_one():
    match = match_instances(sparse.csr_array(np.diag([0.9, 0.6, 0.3])))
    metrics = instance_metrics(match, iou_threshold=0.5)
    assert metrics == pytest.approx(
        {
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "instance_accuracy": 2 / 4,
            "mean_matched_iou": 0.75,
            "dq": 2 / 3,
            "sq": 0.75,
            "pq": 0.5,
        }
    )


def grid_of_disks(*, shift, grow):
    labels = np.zeros((96, 128), int)
    for i, j in np.ndindex(6, 8):
        centre = (8 + 16 * i + shift * ((i + j) % 3), 8 + 16 * j - shift * (j % 2))
        rows, columns = draw.disk(centre, 6 + grow * (i * j % 4 - 1), shape=labels.shape)
        labels[rows, columns] = 1 + 8 * i + j
    return labels


def test_instance_metrics_equal_those_of_stardist():
    """Expected figures: ``stardist.matching.matching`` 0.9.2 on the same label images."""
    truth, prediction = grid_of_disks(shift=0, grow=0), grid_of_disks(shift=2, grow=1)
    truth[truth == 30] = 0
    prediction[np.isin(prediction, [5, 11])] = 0
    prediction[60:70, 60:90] = 99  # hides some, and cuts pieces off others
    rles = [as_rles(labels, height=96, width=128) for labels in (prediction, truth)]
    match = match_instances(sparse_iou(*rles))
    at_50, at_70 = (instance_metrics(match, iou_threshold=t) for t in (0.5, 0.7))
    assert (match.n_predictions, match.n_truths, match.hits(0.5).sum()) == (47, 47, 26)
    assert at_50["precision"] == pytest.approx(0.5531914893617021)
    assert at_50["instance_accuracy"] == pytest.approx(0.38235294117647056)
    assert at_50["mean_matched_iou"] == pytest.approx(0.5999436378479004, abs=1e-6)
    assert at_50["pq"] == pytest.approx(0.33188371455415766, abs=1e-6)
    assert at_70["f1"] == pytest.approx(0.02127659574468085)
    assert at_70["mean_matched_iou"] == pytest.approx(0.751724123954773, abs=1e-6)


def test_panoptic_quality_is_detection_times_segmentation_quality():
    match = match_instances(sparse.csr_array([[0.7, 0.2], [0.0, 0.8], [0.0, 0.0]]))
    metrics = instance_metrics(match, iou_threshold=0.5)
    assert metrics["pq"] == pytest.approx(metrics["dq"] * metrics["sq"])
    assert (metrics["precision"], metrics["recall"]) == pytest.approx((2 / 3, 1))


def test_dsb_2018_score_is_the_mean_accuracy_over_thresholds():
    # 0.72 is a hit at 0.50 to 0.70, five of ten thresholds: 1 of 1; 0 of 2 at the others
    match = match_instances(sparse.csr_array([[0.72]]))
    assert dsb2018_score(match) == pytest.approx(0.5)


def test_thresholds_are_the_numbers_that_overlaps_can_equal():
    """np.arange gives 0.6000000000000001, which an overlap of 3/5 misses."""
    assert [round(20 * threshold) / 20 for threshold in IOU_THRESHOLDS] == list(IOU_THRESHOLDS)


def test_aggregated_jaccard_by_hand():
    # The truth of 10 px is met by 3 px and takes the prediction that meets it with 6 px (union
    # 12 px); nobody takes the other prediction (3 px), and the other truth (4 px) finds none.
    truths, predictions = [bar(0, 10), bar(20, 4)], [bar(4, 8), bar(0, 3)]
    iou = sparse_iou(predictions, truths)
    score = aggregated_jaccard(iou, prediction_areas_px=[8, 3], truth_areas_px=[10, 4])
    assert score == pytest.approx(6 / (12 + 4 + 3))


def test_dice_counts_each_pixel_once_however_many_instances_hold_it():
    foreground, truth = (
        unite_masks(rles, height=HEIGHT, width=WIDTH)
        for rles in ([bar(0, 6), bar(2, 6)], [bar(4, 8)])
    )
    assert count_overlap(foreground, truth) == (8, 8, 4)
    assert dice_coefficient(*count_overlap(foreground, truth)) == pytest.approx(2 * 4 / (8 + 8))


@given(rles=st.lists(disks, max_size=12))
def test_merged_masks_are_their_union(rles):
    union = decode_mask(unite_masks(rles, height=HEIGHT, width=WIDTH))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    for rle in rles:
        expected |= decode_mask(rle)
    assert np.array_equal(union, expected)


def test_fat_area_is_a_share_of_the_whole_image():
    foreground = unite_masks([bar(0, 30), bar(0, 30, row=3)], height=HEIGHT, width=WIDTH)
    assert fat_area_percent(foreground) == pytest.approx(10)


# One image, and a data set


def test_healthy_tile_that_is_predicted_healthy_is_a_success():
    figures = measure_image(pair(), score_threshold=0).figures
    errors = {"count_error", "count_difference", "fat_area_error_points"}
    errors |= {"fat_area_difference_points", "fat_area_percent", "true_fat_area_percent"}
    counts = {"truths", "predictions", "true_positives"}
    assert {name: value for name, value in figures.items() if value != 0} == dict.fromkeys(
        figures.keys() - errors - counts, 1
    )


@pytest.mark.parametrize("empty", [pair(predictions=[bar(0, 5)]), pair(truths=[bar(0, 5)])])
def test_only_predictions_or_only_truths_score_zero(empty):
    figures = measure_image(empty, score_threshold=0).figures
    scores = ("precision", "recall", "f1", "pq", "aji", "dice", "dsb2018_score", *PAPER_METRICS)
    assert {figures[name] for name in scores} == {0}
    assert figures["count_error"] == 1
    assert figures["fat_area_error_points"] == pytest.approx(100 * 5 / 600)


def test_data_set_without_any_instance_is_a_success():
    metrics = evaluate_pairs([pair(), pair()]).metrics
    assert metrics["segm"] == {"AP": 1, "AP50": 1, "AP75": 1, "APs": 1, "APm": 1, "APl": 1}
    assert metrics["instances"]["f1"] == metrics["paper"]["paper_f1"] == 1
    assert metrics["clinical"]["healthy_images_clean_share"] == 1


def test_data_set_with_false_instances_only_scores_zero():
    metrics = evaluate_pairs([pair(predictions=[bar(0, 5)])]).metrics
    assert metrics["segm"]["AP"] == metrics["instances"]["f1"] == 0
    assert set(metrics["paper"].values()) == {0}


def test_averages_leave_out_healthy_images_only_where_truths_are_needed():
    found, healthy = pair([bar(0, 5)], [bar(0, 5)]), pair(predictions=[bar(0, 5)])
    metrics = evaluate_pairs([found, healthy, pair()]).metrics
    assert metrics["paper"]["paper_ap50"] == 1
    assert metrics["instances"]["f1_per_image"] == metrics["instances"]["pq_per_image"] == 1
    assert metrics["instances"]["dice"] == pytest.approx(2 / 3)
    assert metrics["instances"]["precision"] == 0.5
    assert metrics["clinical"]["healthy_images"] == 2
    assert metrics["clinical"]["healthy_images_clean_share"] == 0.5


def test_clinical_figures_by_hand():
    low = pair([bar(0, 6), bar(10, 6)], [bar(0, 6)])
    high = pair([bar(0, 6)], [bar(0, 6), bar(10, 6), bar(20, 6)])
    clinical = evaluate_pairs([low, high]).metrics["clinical"]
    assert clinical["count_error"] == 1.5
    assert clinical["count_error_sd"] == pytest.approx(math.sqrt(0.5))
    assert clinical["count_difference"] == 0.5
    assert clinical["true_fat_area_percent"] == pytest.approx(1.5)
    assert clinical["fat_area_percent"] == pytest.approx(2)
    assert clinical["fat_area_error_points"] == pytest.approx(1.5)
    assert clinical["fat_area_difference_points"] == pytest.approx(0.5)


def test_score_threshold_holds_for_all_figures_but_coco_ap():
    image = pair([bar(0, 5), bar(10, 5)], [bar(0, 5), bar(10, 5)], [0.9, 0.4])
    metrics = evaluate_pairs([image], score_threshold=0.9).metrics
    assert metrics["instances"]["recall"] == 0.5
    assert metrics["paper"]["paper_ap50"] == 0.5
    assert metrics["clinical"]["count_difference"] == -1
    assert metrics["segm"]["AP"] == 1


def test_predictions_in_an_ignored_region_count_for_nothing():
    region = bar(10, 10)
    image = pair([bar(0, 5)], [bar(0, 5), bar(12, 4), bar(18, 6)], ignored=[region])
    figures = measure_image(image, score_threshold=0).figures
    # Of the last prediction only 2 of 6 px are inside, so it stays a false one.
    assert (figures["predictions"], figures["true_positives"]) == (2, 1)


def test_a_hit_stays_a_hit_where_an_ignored_region_covers_it():
    image = pair([bar(0, 5)], [bar(0, 5)], ignored=[bar(0, 20)])
    assert measure_image(image, score_threshold=0).figures["true_positives"] == 1


def test_coco_ap_ignores_regions_too():
    image = pair([bar(0, 5)], [bar(12, 4), bar(0, 5)], ignored=[bar(10, 10)])
    assert coco_ap([image]).figures["AP"] == 1


def as_coco(rles, scores=None):
    annotations = [
        {"id": i, "image_id": 1, "segmentation": rle, "score": scores[i] if scores else 1}
        for i, rle in enumerate(rles)
    ]
    image = {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}
    return {"images": [image], "annotations": annotations}


@given(image=pairs_of_disks, data=st.data())
@settings(max_examples=60, deadline=None)
def test_order_of_the_instances_changes_no_figure(image, data):
    truth = as_coco(image.truths)
    predictions = as_coco(image.predictions, image.scores.tolist())
    shuffled = [
        coco | {"annotations": data.draw(st.permutations(coco["annotations"]))}
        for coco in (truth, predictions)
    ]
    one, other = (
        evaluate_pairs(pair_images(*files, truth_name="gt", predictions_name="pred")).metrics
        for files in ((truth, predictions), shuffled)
    )
    for group in one:
        assert one[group] == pytest.approx(other[group], abs=1e-12)


@given(image=pairs_of_disks)
@settings(max_examples=100, deadline=None)
def test_swapping_truth_and_prediction_swaps_precision_and_recall(image):
    swapped = pair(image.predictions, image.truths)
    one, other = (measure_image(each, score_threshold=0).figures for each in (image, swapped))
    assert one["precision"] == other["recall"]
    assert one["recall"] == other["precision"]
    for name in ("f1", "instance_accuracy", "pq", "dice", "dsb2018_score", "count_error"):
        assert one[name] == pytest.approx(other[name], abs=1e-12)
    assert one["fat_area_difference_points"] == -other["fat_area_difference_points"]


@given(images=st.lists(pairs_of_disks, min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_every_figure_is_a_finite_number(images):
    metrics = evaluate_pairs(images, score_threshold=0.3).metrics
    assert all(math.isfinite(value) for group in metrics.values() for value in group.values())


# COCO AP


def crowded_image(seed=0, number=900):
    """More instances than COCO's matching sees in one piece, or counts by default."""
    rng = np.random.default_rng(seed)
    side = 400
    rows, columns = np.mgrid[:25, :25]
    truths, predictions = [], []
    for _ in range(number):
        top, left = rng.integers(0, side - 25, 2)
        radius = rng.uniform(2, 9)
        for masks, shift, size in ((truths, 0, 1), (predictions, rng.normal(0, 1.5), 1.1)):
            disk = (rows - 12 - shift) ** 2 + (columns - 12) ** 2 <= (radius * size) ** 2
            full = np.zeros((side, side), bool)
            full[top : top + 25, left : left + 25] = disk
            masks.append(encode_mask(full))
    scores = np.sort(rng.random(number))[::-1]
    return ImagePair("crowded.png", side, side, truths, [], predictions, scores)


def test_both_coco_packages_agree():
    pytest.importorskip("faster_coco_eval")
    images = [crowded_image(seed, number=80) for seed in range(3)] + [pair(), pair([bar(0, 5)])]
    faster, reference = (coco_ap(images, backend=b) for b in ("faster-coco-eval", "pycocotools"))
    assert faster.backend == "faster-coco-eval"
    assert reference.backend == "pycocotools"
    assert 0.1 < reference.figures["AP"] < 0.9
    assert faster.figures == pytest.approx(reference.figures, abs=1e-12)
    assert faster.precision == pytest.approx(reference.precision, abs=1e-12)


def test_coco_ap_equals_pycocotools_on_files(tmp_path):
    """The reference as its own documentation uses it, with files and ``loadRes``."""
    images = [crowded_image(seed, number=60) for seed in range(2)]
    records, annotations, results = [], [], []
    for i, image in enumerate(images, 1):
        size = {"height": image.height, "width": image.width}
        records.append(image_record(i, f"{i}.png", **size))
        for rle in image.truths:
            annotations.append(annotation_record(len(annotations) + 1, i, rle))
        for rle, score in zip(image.predictions, image.scores.tolist(), strict=True):
            results.append({"image_id": i, "category_id": 1, "segmentation": rle, "score": score})
    write_coco(tmp_path / "gt.json", records, annotations, category="droplet")
    write_json(tmp_path / "results.json", results)
    truth = COCO(tmp_path / "gt.json")
    reference = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "segm")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    names = ("AP", "AP50", "AP75", "APs")  # no disk is larger than 32 x 32 px
    expected = dict(zip(names, reference.stats[:4], strict=True))
    assert coco_ap(images).figures == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [1, 20, 100])
def test_coco_ap_in_pieces_is_that_of_the_whole(monkeypatch, size):
    image = crowded_image(number=300)
    monkeypatch.setattr("steatosis_d2.evaluation.coco_ap.PIECE_INSTANCES", 10**6)
    whole = coco_ap([image])
    monkeypatch.setattr("steatosis_d2.evaluation.coco_ap.PIECE_INSTANCES", size)
    assert coco_ap([image]).figures == pytest.approx(whole.figures, abs=1e-12)


def test_coco_ap_counts_every_detection_of_a_crowded_image():
    """Detectron2 and COCO count 100 an image, and so never find the rest."""
    masks = [bar(0, 1, row=r) for r in range(HEIGHT)] * 60
    image = pair(masks, masks)
    result = coco_ap([image])
    assert result.detection_limit == 1200
    assert result.figures["AP50"] == 1
