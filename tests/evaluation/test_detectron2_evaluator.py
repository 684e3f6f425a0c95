"""The Detectron2 evaluator: what it keeps, gathers, writes and warns of."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import TrainerBase, hooks
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.events import JSONWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steatosis_d2.data.coco import annotation_record, image_record, read_coco, write_coco
from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.detectron2_evaluator import SteatosisEvaluator, encode_detections
from steatosis_d2.evaluation.figures import evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images
from steatosis_d2.instances.rle import decode_mask, encode_mask

HEIGHT, WIDTH = 40, 60
# centres (row, column) of the true disks in each of the five images; the last one is healthy
CENTRES = {10: [(9, 9), (9, 40)], 11: [(20, 30)], 12: [(9, 9), (30, 50)], 13: [(15, 15)], 14: []}


def disk(row, column, radius=6):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def instances(masks, scores):
    stack = torch.from_numpy(np.array(masks, bool).reshape(-1, HEIGHT, WIDTH))
    return Instances(
        (HEIGHT, WIDTH),
        pred_masks=stack,
        scores=torch.tensor(scores),
        pred_classes=torch.zeros(len(scores), dtype=torch.long),
    )


def predict(image_id):
    """As a network would: each disk a little off, one of them twice with a low score."""
    masks = [disk(row + 1, column - 1) for row, column in CENTRES[image_id]]
    scores = [0.9 - 0.1 * i for i in range(len(masks))]
    if image_id == 12:
        masks, scores = [*masks, disk(9, 11)], [*scores, 0.2]
    return {"instances": instances(masks, scores)}


@pytest.fixture(scope="module")
def truth_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("truth") / "gt.json"
    images = [image_record(i, f"{i}.png", height=HEIGHT, width=WIDTH) for i in CENTRES]
    annotations = [
        annotation_record(number, image_id, encode_mask(disk(*centre)))
        for number, (image_id, centre) in enumerate(
            ((image_id, centre) for image_id, centres in CENTRES.items() for centre in centres), 1
        )
    ]
    write_coco(path, images, annotations, category="droplet")
    return path


@pytest.fixture(scope="module")
def dataset(truth_path):
    MetadataCatalog.get("five_tiles").set(json_file=str(truth_path))
    yield "five_tiles"
    MetadataCatalog.remove("five_tiles")


def process(evaluator, image_ids):
    for image_id in image_ids:
        evaluator.process([{"image_id": image_id}], [predict(image_id)])


def evaluate_all(dataset, **options):
    evaluator = SteatosisEvaluator(dataset, **options)
    process(evaluator, CENTRES)
    return evaluator.evaluate()


def test_masks_are_kept_as_codes_of_the_same_pixels():
    masks = [disk(0, 0), disk(20, 59), np.ones((HEIGHT, WIDTH), bool)]
    codes = encode_detections(instances(masks, [0.5, 0.25, 0.125]))
    assert [score for _, score, _ in codes] == [0.5, 0.25, 0.125]
    for (rle, _, _), mask in zip(codes, masks, strict=True):
        assert np.array_equal(decode_mask(rle), mask)


def test_results_are_groups_of_floats_as_detectron2_expects(dataset):
    results = evaluate_all(dataset)
    assert list(results) == ["segm", "instances", "by_iou", "paper", "clinical"]
    assert all(float(value) >= -100 for group in results.values() for value in group.values())
    assert results["instances"]["truths"] == 6
    assert results["instances"]["true_positives"] == 6
    assert results["instances"]["precision"] == pytest.approx(6 / 7)
    assert results["clinical"]["healthy_images_clean_share"] == 1


def test_files_give_the_same_figures_as_the_evaluator(dataset, truth_path, tmp_path):
    results = evaluate_all(dataset, output_dir=tmp_path, score_threshold=0.5)
    predictions = read_coco(tmp_path / "predictions.json")
    assert [image["file_name"] for image in predictions["images"]] == [f"{i}.png" for i in CENTRES]
    assert len(predictions["annotations"]) == 7, "predictions of every score"
    pairs = pair_images(read_coco(truth_path), predictions, truth_name="t", predictions_name="p")
    assert evaluate_pairs(pairs, score_threshold=0.5).metrics == results
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["settings"]["score_threshold"] == 0.5
    assert record["settings"]["coco_detections_per_image"] == 1000
    assert {group: record[group] for group in results} == results


def test_one_readable_table_is_logged(dataset, caplog):
    with caplog.at_level(logging.INFO):
        evaluate_all(dataset)
    [table] = [message for message in caplog.messages if "Evaluation of five_tiles" in message]
    assert "COCO AP, all predictions, at most 1000 an image" in table
    assert "fat_area_error_points" in table


def test_an_empty_mask_is_no_instance(dataset, tmp_path):
    evaluator = SteatosisEvaluator(dataset, tmp_path)
    process(evaluator, CENTRES)
    empty = np.zeros((HEIGHT, WIDTH), bool)
    evaluator.process([{"image_id": 14}], [{"instances": instances([empty], [0.9])}])
    assert evaluator.evaluate()["instances"]["predictions"] == 7


def test_a_network_that_finds_nothing_has_defined_figures(dataset):
    evaluator = SteatosisEvaluator(dataset)
    for image_id in CENTRES:
        evaluator.process([{"image_id": image_id}], [{"instances": instances([], [])}])
    results = evaluator.evaluate()
    assert results["segm"]["AP"] == results["instances"]["f1"] == 0
    assert results["instances"]["dice"] == pytest.approx(1 / 5)  # the healthy tile


def test_reset_forgets_the_last_round(dataset):
    evaluator = SteatosisEvaluator(dataset)
    process(evaluator, CENTRES)
    evaluator.reset()
    process(evaluator, [10])
    assert evaluator.evaluate()["clinical"]["images"] == 1


def test_reaching_the_detection_cap_is_a_warning(dataset, caplog):
    evaluate_all(dataset, detections_per_image=3)
    assert "1 of 5 images reached the cap of 3 detections, the first is '12.png'" in caplog.text


def test_no_warning_below_the_detection_cap(dataset, caplog):
    evaluate_all(dataset, detections_per_image=4)
    assert "cap" not in caplog.text


def test_images_left_out_are_a_warning(dataset, caplog):
    evaluator = SteatosisEvaluator(dataset)
    process(evaluator, [10, 11])
    assert evaluator.evaluate()["instances"]["recall"] == 1
    assert "Only 2 of the 5 images of five_tiles were processed" in caplog.text


def test_images_of_another_data_set_are_an_error(dataset):
    evaluator = SteatosisEvaluator(dataset)
    evaluator.process([{"image_id": 99}], [{"instances": instances([], [])}])
    with pytest.raises(InputError, match=r"not in .*gt.json.* \(id 99\)"):
        evaluator.evaluate()


def test_data_set_without_a_coco_file_is_an_error():
    with pytest.raises(InputError, match="'from_nowhere' has no COCO file"):
        SteatosisEvaluator("from_nowhere")


@given(
    workers=st.lists(st.sets(st.sampled_from(list(CENTRES))), min_size=1, max_size=3).map(
        lambda parts: [*parts[:-1], parts[-1] | CENTRES.keys() - set().union(*parts)]
    )
)
@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_splitting_over_workers_changes_no_figure(dataset, workers):
    """Some images come to two workers, as where a sampler fills the last batch."""
    parts = []
    for image_ids in workers:
        evaluator = SteatosisEvaluator(dataset)
        process(evaluator, image_ids)
        parts.append(evaluator._detections_by_image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comm, "gather", lambda own: parts)
        gathered = evaluator.evaluate()
    assert gathered == evaluate_all(dataset, distributed=False)


WORKERS = """
import sys
from detectron2.data import MetadataCatalog
from detectron2.engine import launch
from detectron2.utils import comm
sys.path.insert(0, {tests!r})
from test_detectron2_evaluator import CENTRES, process
from steatosis_d2.evaluation.detectron2_evaluator import SteatosisEvaluator
from steatosis_d2.files import write_json

def main():
    MetadataCatalog.get("five_tiles").set(json_file={truth!r})
    evaluator = SteatosisEvaluator("five_tiles", {output!r})
    rank = comm.get_rank()
    process(evaluator, sorted(CENTRES)[: 3] if rank == 0 else sorted(CENTRES)[2:])
    write_json({output!r} + f"/results_{{rank}}.json", evaluator.evaluate())

if __name__ == "__main__":
    # A file brings the workers together: a free port may be taken by another test meanwhile.
    launch(main, num_gpus_per_machine=2, dist_url="file://" + {output!r} + "/workers")
"""


@pytest.mark.slow
def test_two_real_workers_give_the_figures_of_one(dataset, truth_path, tmp_path, request):
    script = tmp_path / "workers.py"
    tests = str(request.path.parent)
    script.write_text(WORKERS.format(tests=tests, truth=str(truth_path), output=str(tmp_path)))
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    first, second = (json.loads((tmp_path / f"results_{i}.json").read_text()) for i in (0, 1))
    assert first == evaluate_all(dataset)
    assert second == {}, "only the first worker reports"
    assert len(read_coco(tmp_path / "predictions.json")["images"]) == 5


class Checkpoints:
    """Remembers what would have been saved."""

    def __init__(self):
        self.saved = []

    def save(self, name, **state):
        self.saved.append((name, state["iteration"]))


def test_figures_reach_the_training_log_and_the_best_checkpoint(dataset, tmp_path):
    def evaluate():
        evaluator = SteatosisEvaluator(dataset)
        for image_id in CENTRES:
            found = predict(image_id) if image_id in trainer.found else None
            nothing = {"instances": instances([], [])}
            evaluator.process([{"image_id": image_id}], [found or nothing])
        return evaluator.evaluate()

    class Trainer(TrainerBase):
        def run_step(self):
            self.found = list(CENTRES)[: (1, 5, 2)[self.iter]]

    trainer, checkpoints = Trainer(), Checkpoints()
    trainer.register_hooks(
        [
            hooks.EvalHook(1, evaluate),
            hooks.BestCheckpointer(1, checkpoints, "instances/f1"),
            hooks.PeriodicWriter([JSONWriter(str(tmp_path / "metrics.json"))], period=1),
        ]
    )
    trainer.train(0, 3)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["instances/f1"] for line in lines] == pytest.approx(
        [0.5, 12 / 13, 2 / 3], abs=1e-6
    )
    assert all("paper/paper_ap50" in line and "segm/AP" in line for line in lines)
    assert checkpoints.saved == [("model_best", 0), ("model_best", 1)]
