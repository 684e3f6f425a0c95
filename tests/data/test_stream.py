import json
import random
from ast import literal_eval
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steatosis_d2.data.stream import (
    ImageStream,
    StreamSampler,
    balance_groups,
    build_stream_loader,
    draw_epoch,
    load_records,
)
from steatosis_d2.errors import InputError
from steatosis_d2.model_zoo import get_config


def draw_numbers(record):
    """A mapper that shows which image it was given and what the global generators drew."""
    return {**record, "draws": (random.random(), np.random.random())}  # noqa: NPY002


def stream_of(n_images, *, seed=0, weights=None):
    weights = np.ones(n_images) if weights is None else weights
    return ImageStream(
        [{"i": i} for i in range(n_images)], draw_numbers, weights=weights, seed=seed
    )


@given(n=st.integers(1, 60), seed=st.integers(0, 2**31), epoch=st.integers(0, 10**6))
def test_epoch_shows_every_image_once(n, seed, epoch):
    assert sorted(draw_epoch(np.full(n, 0.1), seed=seed, epoch=epoch)) == list(range(n))


@given(
    weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=30),
    seed=st.integers(0, 2**31),
)
def test_weights_are_kept_within_one_image_an_epoch(weights, seed):
    expected = np.array(weights) * len(weights) / np.sum(weights)
    drawn = draw_epoch(np.array(weights), seed=seed, epoch=0)
    assert len(drawn) == len(weights)
    counts = np.bincount(drawn, minlength=len(weights))
    assert (np.abs(counts - expected) < 1 + 1e-9).all()


def test_weights_are_kept_on_average():
    weights = np.array([0.2, 0.7, 1.0, 1.3, 1.8])
    epochs = [draw_epoch(weights, seed=1, epoch=epoch) for epoch in range(2000)]
    counts = np.bincount(np.concatenate(epochs), minlength=5)
    assert counts / 2000 == pytest.approx(weights, abs=0.05)


def test_epochs_differ_in_order():
    first, second = (draw_epoch(np.ones(20), seed=0, epoch=epoch).tolist() for epoch in (0, 1))
    assert first != second


@given(numbers=st.lists(st.integers(0, 40), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_a_number_is_the_same_sample_whatever_was_read_before(numbers, seed):
    stream = stream_of(7, seed=seed)
    for number in numbers:
        assert stream[number] == stream_of(7, seed=seed)[number]


def test_an_image_is_augmented_anew_in_each_epoch():
    stream = stream_of(5)
    draws = [stream[number]["draws"] for number in range(50)]
    assert len({numpys for _, numpys in draws}) == len({pythons for pythons, _ in draws}) == 50


def test_another_seed_is_another_stream():
    one, other = ([stream_of(9, seed=seed)[i] for i in range(9)] for seed in (0, 1))
    assert [sample["i"] for sample in one] != [sample["i"] for sample in other]
    assert [sample["draws"] for sample in one] != [sample["draws"] for sample in other]


def batches(n, *, batch_size, rank=0, world_size=1, first_batch=0):
    sampler = StreamSampler(batch_size, rank=rank, world_size=world_size)
    sampler.first_batch = first_batch
    return list(islice(sampler, n))


@given(size=st.integers(1, 5), world_size=st.integers(1, 4))
def test_processes_share_the_stream_batch_by_batch(size, world_size):
    ranks = [
        batches(3, batch_size=size, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    interleaved = [batch for step in zip(*ranks, strict=True) for batch in step]
    assert interleaved == batches(3 * world_size, batch_size=size)
    # At every step they have, together, what one process with the whole batch has.
    together = [[i for batch in step for i in batch] for step in zip(*ranks, strict=True)]
    assert together == batches(3, batch_size=size * world_size)


@given(first=st.integers(0, 20), rank=st.integers(0, 1))
def test_sampler_resumes_at_a_batch(first, rank):
    whole = batches(first + 4, batch_size=3, rank=rank, world_size=2)
    resumed = batches(4, batch_size=3, rank=rank, world_size=2, first_batch=first)
    assert resumed == whole[first:]


def test_reading_ahead_in_processes_changes_nothing():
    loaders = [
        build_stream_loader(
            stream_of(6), StreamSampler(4, rank=0, world_size=1), num_workers=num_workers
        )
        for num_workers in (0, 2)
    ]
    here, ahead = (list(islice(loader, 5)) for loader in loaders)
    assert here == ahead


@pytest.mark.parametrize(
    ("power", "expected"), [(1, [1 / 4] * 4), (0, [1 / 6] * 3 + [1 / 2]), (0.5, None)]
)
def test_groups_are_drawn_by_a_power_of_their_size(power, expected):
    weights = balance_groups(["a", "a", "a", "b"], power=power)
    assert weights.sum() == pytest.approx(1)
    if expected is None:
        expected = np.array([3**-0.5] * 3 + [1]) / (3**0.5 + 1)
    assert weights == pytest.approx(expected)


@pytest.fixture
def two_datasets(disks):
    """Overrides that train on the disks (4 images with, 1 without instances) and on 2 of them."""
    content = json.loads((disks / "annotations.json").read_text())
    content["images"] = content["images"][3:]
    content["annotations"] = content["annotations"][-3:]
    for image, group in zip(content["images"], ("glass", "tissue"), strict=True):
        image["group"] = group
    (disks / "few.json").write_text(json.dumps(content))
    specs = tuple(f"coco:{disks}/{name}.json:{disks}/images" for name in ("annotations", "few"))
    return ["DATASETS.TRAIN", str(specs)]


def load(overrides, **settings):
    settings = [item for key, value in settings.items() for item in (key, str(value))]
    return load_records(get_config("liver/starter.yaml", [*overrides, *settings]))


def test_without_shares_every_image_is_equally_likely(two_datasets):
    records, weights = load(two_datasets)
    assert len(records) == len(weights) == 7
    assert weights == pytest.approx([weights[0]] * 7)


def named(shares, overrides):
    """``DATASETS.TRAIN_SHARES`` for the first of the data sets."""
    names = literal_eval(overrides[overrides.index("DATASETS.TRAIN") + 1])
    return {"DATASETS.TRAIN_SHARES": [list(pair) for pair in zip(names, shares, strict=False)]}


def test_data_sets_are_drawn_by_their_shares(two_datasets):
    _, weights = load(two_datasets, **named((0.8, 0.2), two_datasets))
    assert weights / weights.sum() == pytest.approx([0.16] * 5 + [0.1] * 2)


def test_shares_of_other_data_sets_do_not_matter(two_datasets):
    """Who names data of his own need not undo the config's shares."""
    _, weights = load(two_datasets, **{"DATASETS.TRAIN_SHARES": [["liver_torino_train", 0.6]]})
    assert weights == pytest.approx([weights[0]] * 7)


def test_images_without_instances_are_left_out_where_asked_for(two_datasets):
    records, weights = load(two_datasets, **{"DATALOADER.FILTER_EMPTY_ANNOTATIONS": True})
    assert [len(record["annotations"]) for record in records] == [3] * 5
    assert len(weights) == 5


def test_leaving_out_all_images_is_an_error(disks):
    content = json.loads((disks / "annotations.json").read_text())
    (disks / "blank.json").write_text(json.dumps(content | {"annotations": []}))
    overrides = ["DATASETS.TRAIN", f"('coco:{disks}/blank.json:{disks}/images',)"]
    with pytest.raises(InputError, match=r"no image of .*blank.json.* has an instance; set DATAL"):
        load(overrides, **{"DATALOADER.FILTER_EMPTY_ANNOTATIONS": True})


@pytest.mark.parametrize(
    ("shares", "message"),
    [((1.0,), "gives no share to 'coco:"), ((0.5, 0.0), "expected pairs of a data set's name")],
)
def test_shares_that_do_not_fit_the_data_sets_are_an_error(shares, message, two_datasets):
    with pytest.raises(InputError, match=message):
        load(two_datasets, **named(shares, two_datasets))
