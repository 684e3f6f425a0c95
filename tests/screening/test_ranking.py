"""Which images to look at first."""

import pytest
from screening_actions import HEIGHT, WIDTH, box_mask

from steatosis_d2.data.coco import annotation_record, image_record
from steatosis_d2.evaluation.image_pairs import pair_images
from steatosis_d2.instances.rle import encode_mask
from steatosis_d2.screening.ranking import rank_images, skip_accepted


def rank(labels, predictions, **settings):
    """``labels``: image name -> boxes; ``predictions``: image name -> (box, score)."""

    def coco(boxes_by_name):
        images, annotations = [], []
        for image_id, (name, boxes) in enumerate(boxes_by_name.items(), 1):
            images.append(image_record(image_id, name, height=HEIGHT, width=WIDTH, mpp=1.0))
            for box, score, *screening in boxes:
                record = annotation_record(
                    len(annotations) + 1, image_id, encode_mask(box_mask(*box)), score=score
                )
                crowd = {"iscrowd": int(screening == ["crowd"])}
                annotations.append(record | crowd | {"screening": "".join(screening)})
        return {"images": images, "annotations": annotations}

    return rank_images(
        pair_images(
            skip_accepted(coco(labels)), coco(predictions), truth_name="l", predictions_name="p"
        ),
        **settings,
    )


ONE, TWO, WIDE = (0, 10, 0, 10), (20, 30, 20, 30), (0, 10, 0, 20)


@pytest.mark.parametrize(
    ("labels", "predictions", "expected"),
    [
        ([], [], 0),
        ([(ONE, 1)], [(ONE, 1)], 0),
        ([(ONE, 1)], [], 1),
        ([], [(ONE, 0.3)], 0.3),
        ([(ONE, 1)], [(ONE, 0.8)], 0.2),
        ([(WIDE, 1)], [(ONE, 0.8)], 1 - 0.8 * 0.5),
        ([(ONE, 1)], [(TWO, 0.6)], 1.6),
        ([(WIDE, 1, "crowd")], [(ONE, 0.9)], 0),
    ],
)
def test_objects_in_doubt(labels, predictions, expected):
    [image] = rank({"a": labels}, {"a": predictions})
    assert image.objects_in_doubt == pytest.approx(expected)
    assert 0 <= image.share <= 1


def test_images_with_most_in_doubt_come_first():
    labels = {"a": [(ONE, 1)], "b": [(ONE, 1), (TWO, 1)], "c": [], "d": [(ONE, 1)]}
    predictions = {"a": [(ONE, 1)], "b": [], "c": [(ONE, 0.5)], "d": []}
    assert [image.file_name for image in rank(labels, predictions)] == ["b", "d", "c", "a"]


def test_what_was_accepted_is_skipped():
    [image] = rank({"a": [(ONE, 1, "accepted"), (TWO, 1)]}, {"a": [(ONE, 0.6)]})
    assert (image.labels, image.predictions, image.objects_in_doubt) == (1, 0, 1)


def test_regions_of_a_slide_are_ranked_one_by_one():
    labels, predictions = {"a": [(ONE, 1), (TWO, 1)]}, {"a": [(ONE, 0.9)]}
    first, second = rank(labels, predictions, region_um=15)
    assert (first.left_px, first.top_px, first.objects_in_doubt) == (15, 15, 1)
    assert (first.agreed, second.agreed) == (0, 1)
    assert (second.left_px, second.top_px) == (0, 0)
    assert second.objects_in_doubt == pytest.approx(0.1)
    assert (first.width_px, first.height_px) == (15, 15)
    [whole] = rank(labels, predictions, region_um=1000)
    assert (whole.width_px, whole.height_px) == (WIDTH, HEIGHT)
    assert whole.objects_in_doubt == pytest.approx(1.1)
