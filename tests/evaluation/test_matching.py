import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from steatosis_d2.evaluation.matching import (
    as_rles,
    highest_ious,
    match_instances,
    pool_matches,
    sparse_iou,
)
from steatosis_d2.instances.rle import encode_mask, run_lengths

SIDE = 9


def rectangles():
    """Up to 6 rectangles in a small image, which overlap and repeat freely; some are empty."""
    corner = st.integers(0, SIDE)
    box = st.tuples(corner, corner, corner, corner)
    return st.lists(box, max_size=6).map(lambda boxes: [rectangle(*box) for box in boxes])


def rectangle(top, bottom, left, right):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = True
    return mask


def overlaps():
    """Dense overlap matrices, empty ones and ones full of ties among them."""
    values = st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.6, 0.7, 1.0])
    return hnp.arrays(float, st.tuples(st.integers(0, 6), st.integers(0, 6)), elements=values)


def dense_iou(predictions, truths):
    """Straight from the definition, pixel by pixel."""
    iou = np.zeros((len(predictions), len(truths)))
    for i, prediction in enumerate(predictions):
        for j, truth in enumerate(truths):
            union = np.count_nonzero(prediction | truth)
            iou[i, j] = np.count_nonzero(prediction & truth) / union if union else 0
    return iou


@given(predictions=rectangles(), truths=rectangles())
@settings(max_examples=200)
def test_sparse_overlaps_equal_the_definition_and_hold_nothing_else(predictions, truths):
    iou = sparse_iou(
        [encode_mask(mask) for mask in predictions], [encode_mask(mask) for mask in truths]
    )
    expected = dense_iou(predictions, truths)
    assert iou.toarray() == pytest.approx(expected, abs=1e-15)
    assert iou.nnz == np.count_nonzero(expected)


def test_overlaps_equal_those_of_pycocotools():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:120, :160]

    def disks(number):
        centres = rng.uniform(0, 120, (number, 3)) * (1, 1.3, 0.1)
        return [
            encode_mask((rows - row) ** 2 + (columns - column) ** 2 <= (2 + radius) ** 2)
            for row, column, radius in centres
        ]

    predictions, truths = disks(60), disks(50)
    expected = coco_mask.iou(predictions, truths, [False] * len(truths))
    assert np.array_equal(sparse_iou(predictions, truths).toarray(), expected)
    assert np.count_nonzero(expected) > 50


@given(iou=overlaps())
@settings(max_examples=300)
def test_matching_has_the_total_overlap_of_the_dense_hungarian_method(iou):
    match = match_instances(sparse.csr_array(iou))
    rows, columns = linear_sum_assignment(iou, maximize=True)
    assert match.ious.sum() == pytest.approx(iou[rows, columns].sum(), abs=1e-9)
    assert len(set(match.predictions)) == len(set(match.truths)) == len(match.ious)
    assert np.array_equal(iou[match.predictions, match.truths], match.ious)
    assert (match.n_predictions, match.n_truths) == iou.shape


@given(iou=overlaps(), data=st.data())
@settings(max_examples=200)
def test_order_of_the_instances_changes_no_overlap_of_the_matching(iou, data):
    rows = data.draw(st.permutations(range(iou.shape[0])))
    columns = data.draw(st.permutations(range(iou.shape[1])))
    shuffled = iou[np.array(rows, int)][:, np.array(columns, int)]
    one, other = (match_instances(sparse.csr_array(matrix)) for matrix in (iou, shuffled))
    assert sorted(one.ious) == sorted(other.ious)


@given(iou=overlaps())
def test_swapping_truth_and_prediction_swaps_the_matching(iou):
    match = match_instances(sparse.csr_array(iou))
    swapped = match_instances(sparse.csr_array(iou.T))
    assert sorted(match.ious) == sorted(swapped.ious)
    assert (match.n_predictions, match.n_truths) == (swapped.n_truths, swapped.n_predictions)


def test_greatest_sum_beats_the_greedy_choice():
    """Greedily 0.8 would be taken first, and the second prediction would find nothing."""
    match = match_instances(sparse.csr_array([[0.8, 0.6], [0.7, 0.0]]))
    assert dict(zip(match.predictions, match.truths, strict=True)) == {0: 1, 1: 0}


def test_equal_sums_are_decided_for_the_larger_single_overlap():
    """0.5 alone and 0.25 twice sum up alike; only the former is a hit at 0.5."""
    match = match_instances(sparse.csr_array([[0.5, 0.25], [0.25, 0.0]]))
    assert match.ious.tolist() == [0.5]


def test_a_duplicate_prediction_stays_alone():
    match = match_instances(sparse.csr_array([[1.0], [1.0]]))
    assert len(match.ious) == 1
    assert match.n_predictions == 2


def test_a_pair_at_the_threshold_itself_is_a_hit():
    match = match_instances(sparse.csr_array([[0.6]]))
    assert match.hits(0.6).tolist() == [True]
    assert match.hits(0.61).tolist() == [False]


def test_highest_overlaps_of_predictions_and_of_truths():
    iou = sparse.csr_array([[0.2, 0.7, 0.0], [0.0, 0.3, 0.0]])
    assert highest_ious(iou, axis=1).tolist() == [0.7, 0.3]
    assert highest_ious(iou, axis=0).tolist() == [0.2, 0.7, 0.0]
    assert highest_ious(sparse.csr_array((0, 2)), axis=0).tolist() == [0, 0]


def test_pooled_matches_keep_their_pairs_apart():
    one = match_instances(sparse.csr_array([[0.9, 0.0]]))
    other = match_instances(sparse.csr_array([[0.0], [0.4]]))
    pooled = pool_matches([one, other])
    assert (pooled.predictions.tolist(), pooled.truths.tolist()) == ([0, 2], [0, 2])
    assert pooled.ious.tolist() == [0.9, 0.4]
    assert (pooled.n_predictions, pooled.n_truths) == (3, 3)


def test_label_image_polygons_and_uncompressed_codes_give_the_same_masks():
    mask = rectangle(2, 5, 1, 7)
    polygon = [1, 2, 7, 2, 7, 5, 1, 5]
    uncompressed = {"size": [SIDE, SIDE], "counts": run_lengths(encode_mask(mask)).tolist()}
    expected = coco_mask.decode(encode_mask(mask))
    for masks in (mask.astype(np.uint16) * 300, [[polygon]], [uncompressed], [encode_mask(mask)]):
        [rle] = as_rles(masks, height=SIDE, width=SIDE)
        assert np.array_equal(coco_mask.decode(rle), expected)


def test_polygons_of_one_instance_are_joined():
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [5, 5, 8, 5, 8, 8, 5, 8]]
    [rle] = as_rles([parts], height=SIDE, width=SIDE)
    assert coco_mask.area(rle) == 4 + 9


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((3, 4), int), r"shape \(3, 4\); expected \(9, 9\)"),
        ([encode_mask(np.ones((3, 4), bool))], r"size \[3, 4\]; expected \[9, 9\]"),
        ([[[1, 1, 4, 4]]], "three or more points"),
        ([[]], "neither"),
        ([None], "neither"),
    ],
)
def test_masks_of_another_form_or_size_are_an_error(masks, message):
    with pytest.raises(ValueError, match=message):
        as_rles(masks, height=SIDE, width=SIDE)
