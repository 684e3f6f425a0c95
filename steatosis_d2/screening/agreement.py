"""How far reviewers agree: on labels that both have judged, and in what each has outlined."""

import itertools
from collections import Counter
from dataclasses import dataclass

from steatosis_d2.errors import InputError
from steatosis_d2.evaluation.figures import evaluate_pairs
from steatosis_d2.evaluation.image_pairs import pair_images
from steatosis_d2.screening.labels import REJECTED, UNREVIEWED


@dataclass(frozen=True)
class Agreement:
    """
    Two reviewers' verdicts on the labels that both have judged.

    Attributes:
        reviewers (tuple[str, str]): their names.
        pairs (Counter): (verdict of the first, of the second) -> number of labels.
    """

    reviewers: tuple[str, str]
    pairs: Counter

    @property
    def n_labels(self):
        """Number of labels that both have judged (int)."""
        return self.pairs.total()

    @property
    def observed(self):
        """Share of the labels on which they agree (float)."""
        return sum(n for (one, other), n in self.pairs.items() if one == other) / self.n_labels

    @property
    def kappa(self):
        """
        Cohen's kappa (float): agreement beyond what chance alone gives.

        None where both gave one and the same verdict throughout, when it is not defined.
        Cohen, Educational and Psychological Measurement 1960, formula 1.
        """
        first: Counter[str] = Counter()
        second: Counter[str] = Counter()
        for (one, other), n in self.pairs.items():
            first[one] += n
            second[other] += n
        by_chance = sum(first[verdict] * second[verdict] for verdict in first) / self.n_labels**2
        return None if by_chance == 1 else (self.observed - by_chance) / (1 - by_chance)


def measure_agreement(states):
    """
    Agreement of every two reviewers over all images.

    A label's verdicts are ``accepted``, ``rejected`` and ``edited`` (replaced by a better
    outline). Labels that were edited away count: they were judged. What a reviewer has drawn
    counts as accepted by them.

    Args:
        states (iterable[ImageState]): one an image.

    Returns:
        list[Agreement]: of those reviewers who have judged labels in common, by name.
    """
    pairs: dict[tuple[str, str], Counter] = {}
    for state in states:
        for verdicts in state.verdicts.values():
            for one, other in itertools.combinations(sorted(verdicts), 2):
                both = verdicts[one].value, verdicts[other].value
                pairs.setdefault((one, other), Counter())[both] += 1
    return [Agreement(reviewers, pairs[reviewers]) for reviewers in sorted(pairs)]


def format_agreement(agreement):
    """
    One line for a person.

    Args:
        agreement (Agreement): of two reviewers.

    Returns:
        str: names, number of labels, agreement and kappa.
    """
    kappa = "not defined (one verdict throughout)"
    if agreement.kappa is not None:
        kappa = f"{agreement.kappa:.3f}"
    one, other = agreement.reviewers
    return (
        f"{one} and {other}: {agreement.n_labels} labels judged by both, "
        f"{agreement.observed:.1%} alike, Cohen's kappa {kappa}"
    )


@dataclass(frozen=True)
class OutlineAgreement:
    """
    What two reviewers have outlined in the same images.

    Attributes:
        reviewers (tuple[str, str]): what to call them.
        images (int): that both have outlined.
        objects (tuple[int, int]): in these.
        f1 (float): of the one's objects against the other's, at IoU 0.5, pooled; it is the same
            whoever is taken for the truth.
        pq (float): panoptic quality, likewise.
        fat_area_points (float): mean over the images of the difference in fat area, in percentage
            points of the image.
    """

    reviewers: tuple[str, str]
    images: int
    objects: tuple[int, int]
    f1: float
    pq: float
    fat_area_points: float


def compare_outlines(contents, one, other):
    """
    How far two reviewers' outlines agree: the ceiling for any network.

    What a reviewer has rejected is no object to them. An image counts if neither has left a label
    of it unreviewed.

    Args:
        contents (dict): name (str) -> content of a COCO file of one reviewer's screened labels.
        one, other (str): which two.

    Returns:
        OutlineAgreement: of both.

    Raises:
        InputError: there is no image that both have outlined.
    """
    unreviewed = _unreviewed_images(contents[one]) | _unreviewed_images(contents[other])
    both = [_objects_alone(contents[name], without=unreviewed) for name in (one, other)]
    if not both[0]["images"]:
        raise InputError(
            f"'{one}' and '{other}' have no image that both have outlined: each has unreviewed "
            "labels in one or the other. Screen some images to the end."
        )
    pairs = pair_images(*both, truth_name=one, predictions_name=other)
    metrics = evaluate_pairs(pairs).metrics
    return OutlineAgreement(
        reviewers=(one, other),
        images=len(pairs),
        objects=(len(both[0]["annotations"]), len(both[1]["annotations"])),
        f1=metrics["instances"]["f1"],
        pq=metrics["instances"]["pq"],
        fat_area_points=metrics["clinical"]["fat_area_error_points"],
    )


def format_outline_agreement(agreement):
    """
    One line for a person.

    Args:
        agreement (OutlineAgreement): of two reviewers.

    Returns:
        str: names, numbers of images and objects, F1, PQ and the difference in fat area.
    """
    one, other = agreement.reviewers
    return (
        f"{one} and {other}: {agreement.images} images, {agreement.objects[0]} and "
        f"{agreement.objects[1]} objects, F1@0.5 {agreement.f1:.3f}, PQ {agreement.pq:.3f}, fat "
        f"area {agreement.fat_area_points:.2f} points apart"
    )


def _unreviewed_images(content):
    """Names of images of which a label was not judged."""
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return {
        names[annotation["image_id"]]
        for annotation in content["annotations"]
        if annotation.get("screening") == UNREVIEWED
    }


def _objects_alone(content, *, without):
    """Content with what counts as an object to its reviewer, in the images that count."""
    images = [image for image in content["images"] if image["file_name"] not in without]
    ids = {image["id"] for image in images}
    annotations = [
        annotation | {"score": 1.0}
        for annotation in content["annotations"]
        if annotation["image_id"] in ids
        and annotation.get("screening") != REJECTED
        and not annotation.get("iscrowd")
    ]
    return {"images": images, "annotations": annotations}
