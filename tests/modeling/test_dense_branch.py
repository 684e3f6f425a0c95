"""The dense branch: what it learns from, and what it does to scores, masks and precisions."""

import copy

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

from steatosis_d2.data.augmentation import RandomScaledCrop
from steatosis_d2.data.dense_labels import (
    FAT,
    NOT_FAT,
    OTHER_WHITE,
    TISSUE,
    UNKNOWN,
    find_openings,
    label_pixels,
)
from steatosis_d2.modeling.acceleration import accelerate
from steatosis_d2.modeling.borders import mirror_into_padding
from steatosis_d2.modeling.dense_branch import (
    DENSE,
    look_at_boxes,
    marginal_loss,
    temper_scores,
)
from steatosis_d2.modeling.quantization import RangeRecorder, cpu_has_int8, list_layers
from steatosis_d2.modeling.roi_heads import with_larger_boxes

ALL = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]  # of random weights, whatever the branch says
BRANCH = [*ALL, "MODEL.DENSE_BRANCH.ENABLED", "True", "MODEL.DENSE_BRANCH.CONVS_DIM", "8"]


@pytest.fixture
def picture():
    """Pink tissue with a labelled droplet, an unlabelled one and a field of glass of 120 um."""
    image_rgb = np.full((240, 400, 3), (190, 110, 160), np.uint8)
    image_rgb[:, 160:] = 240
    fat = np.zeros((240, 400), bool)
    for row in (40, 120):
        image_rgb[row : row + 20, 40:60] = 240
    fat[40:60, 40:60] = True
    return image_rgb, fat


def label(picture, **settings):
    image_rgb, fat = picture
    return label_pixels(image_rgb, fat=fat, ignored=np.zeros_like(fat), mpp=0.5, **settings)


def test_what_is_not_labelled_is_no_fat(picture):
    labels = label(picture)
    assert (labels[picture[1]] == FAT).all()
    assert labels[130, 50] == NOT_FAT
    assert labels[100, 100] == TISSUE
    assert labels[100, 300] == OTHER_WHITE


def test_where_droplets_were_left_out_white_may_be_fat(picture):
    labels = label(picture, is_incomplete=True)
    assert labels[130, 50] == UNKNOWN
    assert labels[100, 100] == TISSUE
    assert labels[50, 50] == FAT


def test_where_all_white_is_known_the_rest_is_tissue(picture):
    white = np.zeros((240, 400), bool)
    white[:, 160:] = True
    labels = label(picture, other_white=white)
    assert labels[130, 50] == TISSUE
    assert labels[100, 300] == OTHER_WHITE


def test_areas_to_ignore_are_unknown(picture):
    image_rgb, fat = picture
    ignored = np.ones_like(fat)
    assert (label_pixels(image_rgb, fat=fat, ignored=ignored, mpp=0.5) == UNKNOWN).all()


def test_openings_are_wide_and_no_fat(picture):
    image_rgb, _ = picture
    image_rgb[:, 160:] = image_rgb[0, 0]
    image_rgb[180:220, 60:100] = 240  # 20 um, not labelled
    labels = label(picture)
    [box] = find_openings(image_rgb, labels, mpp=0.5)
    assert 60 < box[0] < 80 < box[2] < 100
    assert 180 < box[1] < 200 < box[3] < 220
    assert len(find_openings(image_rgb, labels, mpp=None)) == 0
    assert len(find_openings(image_rgb, label(picture, is_incomplete=True), mpp=0.5)) == 0


def test_crops_hold_an_opening():
    crop = RandomScaledCrop((1.0, 1.0), (32, 32), on_instance=1.0, on_opening=1.0)
    boxes, opening = np.array([[0.0, 0, 4, 4]]), np.array([[150.0, 60, 160, 70]])
    image = np.zeros((200, 300, 3), np.uint8)
    for _ in range(10):
        window = crop.get_transform(image, 1.0, boxes, opening).transforms[0]
        assert window.x0 <= 155 < window.x0 + 32
        assert window.y0 <= 65 < window.y0 + 32
    assert crop.get_transform(image, 1.0, boxes, ()).transforms[0].x0 < 4


def test_no_fat_is_tissue_and_other_white_together():
    logits = torch.log(torch.tensor([0.5, 0.2, 0.3])).view(1, 3, 1, 1).expand(1, 3, 1, 4)
    for value, p in ((TISSUE, 0.5), (FAT, 0.2), (OTHER_WHITE, 0.3), (NOT_FAT, 0.8)):
        labels = torch.tensor([[[value, UNKNOWN, UNKNOWN, UNKNOWN]]])
        assert marginal_loss(logits, labels).item() == pytest.approx(-np.log(p), rel=1e-5)
    assert marginal_loss(logits, torch.full((1, 1, 4), UNKNOWN)).item() == 0


@pytest.fixture
def opinion():
    """Probabilities on a map of 60 x 60 cells of 4 px: fat around (20, 20), a vein at (40, 40)."""
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")
    classes = torch.zeros(60, 60, dtype=torch.int64)
    classes[(rows - 20) ** 2 + (columns - 20) ** 2 < 36] = FAT
    classes[(rows - 40) ** 2 + (columns - 40) ** 2 < 144] = OTHER_WHITE
    return torch.nn.functional.one_hot(classes, 3).permute(2, 0, 1).float()


def test_scores_fall_where_the_branch_sees_no_fat(opinion):
    droplet, tissue = [58.0, 58, 106, 106], [10.0, 150, 50, 190]
    half_a_vein = [116.0, 116, 164, 212]
    scores = temper_scores(
        torch.full((3,), 0.8),
        torch.tensor([droplet, tissue, half_a_vein]),
        opinion,
        weight=0.5,
        stride=4,
    )
    assert scores[0] > 0.8
    assert scores[1:].max() < 0.05


def test_small_boxes_are_tempered_less(opinion):
    boxes = torch.tensor([[10.0, 150, 20, 160], [10.0, 150, 50, 190]])
    small, large = temper_scores(torch.full((2,), 0.8), boxes, opinion, weight=0.5, stride=4)
    assert large < small < 0.8


def test_white_around_a_box_counts_against_it(opinion):
    opinion[FAT, 28:52, 28:52] = opinion[OTHER_WHITE, 28:52, 28:52]
    opinion[OTHER_WHITE, 36:44, 36:44] = 0
    inside, around = look_at_boxes(torch.tensor([[148.0, 148, 180, 180]]), opinion, stride=4)
    assert inside[0] > 0.9
    assert around[0] > 0.5


def test_what_is_beyond_the_image_does_not_count(opinion):
    opinion[:] = 0
    opinion[FAT] = 1
    inside, around = look_at_boxes(torch.tensor([[-20.0, -20, 40, 40]]), opinion, stride=4)
    assert inside[0] == pytest.approx(1)
    assert around[0] == pytest.approx(0)


def test_weight_0_leaves_scores_as_they_are(slim_model):
    image = {"image": torch.rand(3, 96, 96) * 255}
    plain = slim_model(41, overrides=[*BRANCH, "MODEL.DENSE_BRANCH.SCORE_WEIGHT", "0.0"]).eval()
    tempered = slim_model(41, overrides=BRANCH).eval()
    tempered.load_state_dict(plain.state_dict())
    without = slim_model(41, overrides=ALL).eval()
    without.load_state_dict(
        {k: v for k, v in plain.state_dict().items() if not k.startswith("dense_branch")}
    )
    with torch.no_grad():
        results = [model([image])[0]["instances"] for model in (plain, without, tempered)]
    assert torch.equal(results[0].scores, results[1].scores)
    assert torch.equal(results[0].pred_masks, results[1].pred_masks)
    assert results[2].scores.max() < results[0].scores.max()


def dense_probabilities(model, image):
    """What the branch of a network gives to the heads."""
    with torch.no_grad():
        return model._extract_features([model._prepare_input(image)])[1][DENSE]


@pytest.mark.parametrize("views", [1, 4])
def test_fast_network_sees_the_same(views, slim_model):
    image = {"image": torch.rand(3, 90, 101) * 255}
    settings = [*BRANCH, "TEST.VIEWS", str(views), "INPUT.MIRROR_BORDERS", "True"]
    model = slim_model(41, overrides=[*settings, "MODEL.ROI_MASK_HEAD.BOX_SCALE", "1.2"]).eval()
    fast = accelerate(copy.deepcopy(model), precision=torch.bfloat16)
    expected, ours = (dense_probabilities(one, image) for one in (model, fast))
    assert ours.dtype == torch.float32
    assert (ours - expected).abs().mean() < 0.05
    with torch.no_grad():
        assert len(fast._infer([image], None, True)[0]["instances"]) > 0


@pytest.mark.skipif(not cpu_has_int8(), reason="this processor has no VNNI")
def test_branch_computes_in_bytes(slim_model):
    image = {"image": torch.rand(3, 96, 96) * 255}
    model = slim_model(41, overrides=BRANCH).eval()
    plain = accelerate(copy.deepcopy(model), precision=torch.float32)
    with torch.no_grad(), RangeRecorder(plain) as recorder:
        plain._infer([image], None, True)
    assert set(plain.dense_branch.layers) <= set(list_layers(plain))
    fast = accelerate(model, precision=torch.bfloat16, ranges=recorder.ranges)
    assert fast.dense_branch.layers[0].weight is None
    expected, ours = (dense_probabilities(one, image) for one in (plain, fast))
    assert (ours - expected).abs().mean() < 0.05
    with torch.no_grad():
        assert len(fast._infer([image], None, True)[0]["instances"]) > 0


def test_branch_learns_to_tell_the_classes(slim_model):
    """A few steps on one image: the loss of the branch falls, and reaches the backbone."""
    model = slim_model(41, overrides=BRANCH).train()
    image = torch.zeros(3, 64, 64)
    image[:, 16:48, 16:48] = 255
    labels = torch.full((64, 64), NOT_FAT)
    labels[16:48, 16:48] = FAT
    truths = Instances((64, 64))
    truths.gt_boxes = Boxes(torch.tensor([[16.0, 16, 48, 48]]))
    truths.gt_classes = torch.tensor([0])
    truths.gt_masks = BitMasks((labels == FAT)[None])
    batch = [{"image": image, "instances": truths, "sem_seg": labels}] * 2
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    losses = []
    with EventStorage():
        for _ in range(12):
            optimizer.zero_grad()
            loss = model(batch)["loss_dense"]
            loss.backward()
            losses.append(loss.item())
            assert model.backbone.bottom_up.stem.conv1.weight.grad.abs().max() > 0
            optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_larger_boxes_stay_in_the_image():
    instances = Instances((50, 80))
    instances.pred_boxes = Boxes(torch.tensor([[0.0, 10, 20, 30]]))
    instances.scores = torch.tensor([0.5])
    larger = with_larger_boxes(instances, 1.5)
    assert larger.pred_boxes.tensor.tolist() == [[0, 5, 25, 35]]
    assert instances.pred_boxes.tensor.tolist() == [[0, 10, 20, 30]]
    assert larger.scores.tolist() == [0.5]


def test_boxes_of_results_are_those_of_their_masks(slim_model):
    model = slim_model(41, overrides=["MODEL.ROI_MASK_HEAD.BOX_SCALE", "1.5"]).eval()
    with torch.no_grad():
        result = model([{"image": torch.rand(3, 96, 96) * 255}])[0]["instances"]
    assert result.pred_masks.any()
    for mask, box in zip(result.pred_masks, result.pred_boxes, strict=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        if len(rows):
            assert box.tolist() == [
                columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            ]  # fmt: skip


def test_padding_is_the_mirrored_image():
    images = ImageList.from_tensors([torch.arange(1.0, 13).view(1, 3, 4), torch.ones(1, 6, 5)])
    mirror_into_padding(images)
    assert images.tensor[0, 0, 0].tolist() == [1, 2, 3, 4, 4]
    assert images.tensor[0, 0, :, 0].tolist() == [1, 5, 9, 9, 5, 1]
    assert (images.tensor[1] == 1).all()
