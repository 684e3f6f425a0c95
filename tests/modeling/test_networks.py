import pytest
import torch
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from steatosis_d2.data.contrast import stretch_contrast
from steatosis_d2.modeling.proposal_generator import lies_in


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
def test_scaling_inside_the_model_equals_scaling_before_it(slim_model, scale):
    image = torch.rand(3, 64, 80) * 255
    scaled = slim_model(41, overrides=["INPUT.SCALE", str(scale)]).eval()
    plain = slim_model(41, overrides=["INPUT.SCALE", "1.0"]).eval()
    plain.load_state_dict(scaled.state_dict())
    resized = functional.interpolate(
        image[None], size=[round(64 * scale), round(80 * scale)], mode="bilinear", antialias=True
    )[0]
    with torch.no_grad():
        ours = scaled([{"image": image}])[0]["instances"]
        expected = plain([{"image": resized, "height": 64, "width": 80}])[0]["instances"]
    assert ours.image_size == (64, 80)
    assert len(ours) > 0
    assert torch.equal(ours.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(ours.pred_masks, expected.pred_masks)


@pytest.mark.parametrize(("mpp", "scale"), [(0.5, 2.0), (0.125, 0.5), (None, 1.5)])
def test_input_is_scaled_by_its_pixel_size_where_it_is_known(mpp, scale, slim_model):
    image_input = {"image": torch.rand(3, 64, 80) * 255}
    aware = slim_model(41, overrides=["INPUT.MPP", "0.25", "INPUT.SCALE", "1.5"]).eval()
    plain = slim_model(41, overrides=["INPUT.MPP", "0.0", "INPUT.SCALE", str(scale)]).eval()
    plain.load_state_dict(aware.state_dict())
    with torch.no_grad():
        ours = aware([image_input | ({"mpp": mpp} if mpp else {})])[0]["instances"]
        expected = plain([image_input])[0]["instances"]
    assert len(ours) > 0
    assert torch.equal(ours.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_contrast_is_stretched_inside_the_model(slim_model):
    """So that DefaultPredictor, which gives floats, and tiles of a slide, in bytes, agree."""
    image = torch.randint(20, 60, (3, 64, 80), dtype=torch.uint8)
    stretching = slim_model(41, overrides=["INPUT.STRETCH", "[1, 99]"]).eval()
    plain = slim_model(41).eval()
    plain.load_state_dict(stretching.state_dict())
    with torch.no_grad():
        expected = plain([{"image": stretch_contrast(image, [1, 99])}])[0]["instances"]
        assert len(expected) > 0
        for given in (image, image.float()):
            ours = stretching([{"image": given}])[0]["instances"]
            assert torch.equal(ours.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_another_output_size_can_be_asked_for(slim_model):
    model = slim_model(41).eval()
    with torch.no_grad():
        result = model([{"image": torch.rand(3, 32, 32), "height": 64, "width": 96}])
    assert result[0]["instances"].image_size == (64, 96)


def test_image_of_one_pixel_is_not_an_error(slim_model):
    model = slim_model(41, overrides=["INPUT.SCALE", "0.5"]).eval()
    with torch.no_grad():
        result = model([{"image": torch.rand(3, 1, 1)}])
    assert result[0]["instances"].image_size == (1, 1)


def test_training_takes_images_as_they_are(slim_model):
    """The mapper has scaled them already, together with their masks."""
    model = slim_model(41, overrides=["INPUT.SCALE", "2.0"])
    images = model.preprocess_image([{"image": torch.rand(3, 64, 64)}])
    assert images.image_sizes == [(64, 64)]


def test_proposals_are_thinned_less_in_training(slim_model, monkeypatch):
    thresholds = []

    def record(*arguments, **_):
        thresholds.append(arguments[3])
        return []

    monkeypatch.setattr("steatosis_d2.modeling.proposal_generator.find_top_rpn_proposals", record)
    generator = slim_model(41).proposal_generator
    for is_training in (True, False, True):
        generator.train(is_training).predict_proposals([], [], [], [])
    assert thresholds == [0.9, 0.7, 0.9]


@pytest.mark.parametrize(
    ("size", "is_training", "limits"),
    [
        ((1024, 1024), False, (50, 30)),
        ((64, 1024), False, (50, 30)),
        ((2048, 1536), False, (150, 90)),
        ((2048, 1536), True, (7, 5)),
    ],
)
def test_proposals_at_test_are_as_many_as_the_area_needs(
    size, is_training, limits, slim_model, monkeypatch
):
    def record(*arguments):
        asked.append(arguments[4:6])
        return []

    asked = []
    settings = ["MODEL.RPN.PRE_NMS_TOPK_TEST", "50", "MODEL.RPN.POST_NMS_TOPK_TEST", "30"]
    settings += ["MODEL.RPN.PRE_NMS_TOPK_TRAIN", "7", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "5"]
    monkeypatch.setattr("steatosis_d2.modeling.proposal_generator.find_top_rpn_proposals", record)
    generator = slim_model(41, overrides=settings).proposal_generator.train(is_training)
    generator.predict_proposals([], [], [], [size])
    assert asked == [limits]


def test_detections_are_as_many_as_the_area_allows(slim_model, monkeypatch):
    monkeypatch.setattr("steatosis_d2.modeling.limits.REFERENCE_SIDE_PX", 64)
    settings = ["TEST.DETECTIONS_PER_IMAGE", "3", "INPUT.SCALE", "1.0"]
    settings += ["MODEL.ROI_HEADS.NMS_THRESH_TEST", "1.0"]
    model = slim_model(41, overrides=settings).eval()
    with torch.no_grad():
        counts = [
            len(model([{"image": torch.rand(3, *size) * 255}])[0]["instances"])
            for size in [(32, 64), (64, 64), (128, 96)]
        ]
    assert counts == [3, 3, 9]


def random_features(model, images):
    """Unlike those of a random network, none give two proposals the same score."""
    # Nor does the layer that sees them: after ReLU a cell can be all zeros.
    model.proposal_generator.rpn_head.conv.activation = torch.nn.Tanh()
    return {name: torch.randn_like(one) for name, one in model.backbone(images.tensor).items()}


def test_proposals_are_those_of_detectron2(slim_model):
    """Only the best are decoded, and the rest could not have become proposals."""
    model = slim_model(41, overrides=["MODEL.RPN.PRE_NMS_TOPK_TEST", "50"]).eval()
    images = model.preprocess_image([{"image": torch.rand(3, 96, 64) * 255} for _ in range(2)])
    with torch.no_grad():
        features = random_features(model, images)
        ours, _ = model.proposal_generator(images, features)
        model.proposal_generator.__class__ = RPN
        expected, _ = model.proposal_generator(images, features)
    for proposals, theirs in zip(ours, expected, strict=True):
        assert len(proposals) > 0
        # Rounded alike but for the last bit: exp() takes another path at the end of a tensor
        torch.testing.assert_close(proposals.proposal_boxes.tensor, theirs.proposal_boxes.tensor)
        assert torch.equal(proposals.objectness_logits, theirs.objectness_logits)


def truths_with_area(*, size, ignored):
    """A droplet in the upper left corner, and a box (left, top, right, bottom) to ignore."""
    masks = torch.zeros(2, *size, dtype=torch.bool)
    left, top, right, bottom = ignored
    masks[0, top:bottom, left:right] = True
    masks[1, 4:20, 4:20] = True
    truths = Instances(size)
    truths.gt_boxes = Boxes(torch.tensor([ignored, (4, 4, 20, 20)], dtype=torch.float32))
    truths.gt_classes = torch.tensor([-1, 0])
    truths.gt_masks = BitMasks(masks)
    return truths


def test_nothing_in_an_ignored_area_is_background(slim_model):
    model = slim_model(41)
    truths = truths_with_area(size=(128, 128), ignored=(0, 32, 128, 128))
    images = model.preprocess_image([{"image": torch.rand(3, 128, 128) * 255}])
    generator, heads = model.proposal_generator, model.roi_heads
    with EventStorage(), torch.no_grad():
        features = model.backbone(images.tensor)
        anchors = generator.anchor_generator([features[name] for name in generator.in_features])
        [labels], _ = generator.label_and_sample_anchors(anchors, [truths])
        proposals, losses = generator(images, features, [truths])
        [sampled] = heads.label_and_sample_proposals(proposals, [truths])
    inside = Boxes.cat(anchors).inside_box((128, 128)) & (
        Boxes.cat(anchors).get_centers()[:, 1] > 90
    )
    assert inside.sum() > 50
    assert not (labels[inside] == 0).any()
    assert (labels == 0).any()
    assert (labels == 1).any()
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc"}
    assert (sampled.gt_classes == 0).any()
    background = sampled.proposal_boxes[sampled.gt_classes == 1]
    assert not lies_in(background, truths.gt_masks.tensor[0]).any()


def test_without_ignored_areas_sampling_is_detectron2s(slim_model):
    model = slim_model(41)
    truths = truths_with_area(size=(64, 64), ignored=(32, 32, 64, 64))[1:]
    generator = model.proposal_generator
    images = model.preprocess_image([{"image": torch.rand(3, 64, 64) * 255}])
    results = []
    with EventStorage(), torch.no_grad():
        features = random_features(model, images)
        generator.nms_thresh = generator.nms_thresh_train
        for kind in (type(generator), RPN):
            generator.__class__ = kind
            torch.manual_seed(0)
            results.append(generator(images, features, [truths]))
    (ours, our_losses), (expected, expected_losses) = results
    torch.testing.assert_close(ours[0].proposal_boxes.tensor, expected[0].proposal_boxes.tensor)
    assert our_losses == expected_losses


@given(
    st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=5, max_size=5),
    st.tuples(*[st.integers(-4, 12)] * 4),
)
def test_box_lies_in_an_area_if_most_of_its_pixels_do(area, corners):
    area = torch.tensor(area)
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    pixels = area[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    expected = bool(pixels.sum() > 0.5 * pixels.numel())
    box = Boxes(torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32))
    assert lies_in(box, area).tolist() == [expected]
