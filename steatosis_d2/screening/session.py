"""Labels under screening: what a reviewer is shown, and what becomes of a decision."""

from dataclasses import dataclass

import numpy as np

from steatosis_d2.instances.outlines import trace_outlines
from steatosis_d2.instances.strip import split_in_batches, stack_instances
from steatosis_d2.measurement.morphology import measure_solidity
from steatosis_d2.screening.edits import close_outline, encode_geometry, merge_masks, split_mask
from steatosis_d2.screening.labels import ACCEPTED, REJECTED, UNREVIEWED
from steatosis_d2.screening.log import Entry
from steatosis_d2.screening.places import Places
from steatosis_d2.screening.state import EDITED, JUDGEMENTS, UNDO, apply_decisions

# More outlines than this in one view tell nothing apart, and make it slow.
MAX_IN_VIEW = 3000


class Conflict(Exception):
    """A decision on what has changed since the reviewer saw it."""


class Unusable(Exception):
    """A decision that cannot be carried out as it stands; the message says how it can."""


@dataclass(frozen=True)
class Shape:
    """
    What of a label never changes.

    Attributes:
        path (str): its outline along the sides of its pixels, as an SVG path in px of the image.
        box_xywh (list[int]): bounding box in px.
        area_px (int): its pixels.
        solidity (float): share of its convex hull that it fills, in 0..1.
    """

    path: str
    box_xywh: list[int]
    area_px: int
    solidity: float


class Screening:
    """
    A file of labels and the decisions on it.

    Outlines are shared: an edit replaces labels for everyone. Verdicts are each reviewer's own,
    and those of the others are not shown, so that their agreement means something.

    Attributes:
        label_file (LabelFile): the labels.
        log (DecisionLog): the decisions.
    """

    def __init__(self, label_file, log):
        self.label_file = label_file
        self.log = log
        self._shapes: dict[int, Shape] = {}  # of labels by id: their pixels never change
        self._places: dict[int, Places] = {}  # of the file's labels, by image
        self._has_scores = any(
            label.score is not None for labels in label_file.labels.values() for label in labels
        )

    @property
    def ranked_by(self):
        """What says how certain a label is: ``score``, or ``solidity`` where no label has one."""
        return "score" if self._has_scores else "solidity"

    def state(self, image_id):
        """
        The labels of an image as they stand.

        Args:
            image_id (int): of the image.

        Returns:
            ImageState: after all decisions on disk.
        """
        return self._apply(image_id, self.log.read(image_id))

    def list_images(self, reviewer):
        """
        Every image with its progress.

        Args:
            reviewer (str): whose progress.

        Returns:
            list[dict]: ``id``, ``file_name``, ``height``, ``width``, ``mpp`` (None if unknown) and
            the numbers of labels ``accepted``, ``rejected`` and ``unreviewed``.
        """
        decisions = self.log.read_all()
        return [
            {
                "id": image_id,
                "file_name": image["file_name"],
                "height": image["height"],
                "width": image["width"],
                "mpp": image.get("mpp"),
            }
            | _count(self._apply(image_id, decisions.get(image_id, [])), reviewer)
            for image_id, image in self.label_file.images.items()
        ]

    def describe(self, image_id, reviewer, *, since=None):
        """
        What a reviewer is shown of an image.

        Args:
            image_id (int): of the image.
            reviewer (str): who looks.
            since (int or None): number of the last decision that the reviewer knows of, 0 for the
                labels as the file gives them; None to be told everything.

        Returns:
            dict: ``labels`` (list of dict), all of them or those that later decisions are about;
            ``gone``, ids of those that are no more; ``last``, number of the last decision;
            ``undoable``, that of the reviewer's last one, or None.
        """
        decisions = self.log.read(image_id)
        state = self._apply(image_id, decisions)
        own = state.last_of(reviewer)
        wanted, gone = set(state.labels), []
        if since is not None:
            about = _mentioned_since(decisions, since)
            wanted, gone = wanted & about, sorted(about - wanted)
        return {
            "labels": self._describe_labels(state, reviewer, sorted(wanted)),
            "gone": gone,
            "last": decisions[-1].number if decisions else 0,
            "undoable": own.number if own else None,
        }

    def describe_view(self, image_id, reviewer, window_xyxy):
        """
        What a reviewer is shown of a part of a slide.

        Args:
            image_id (int): of the slide.
            reviewer (str): who looks.
            window_xyxy (tuple[float, float, float, float]): what is in view, in px of the slide.

        Returns:
            dict: as :meth:`describe`, with the ``labels`` in view; there are none where they would
            be too many, and ``hidden`` says how many.
        """
        decisions = self.log.read(image_id)
        state = self._apply(image_id, decisions)
        own = state.last_of(reviewer)
        wanted = self._find_in_window(image_id, state, window_xyxy)
        hidden = len(wanted) if len(wanted) > MAX_IN_VIEW else 0
        return {
            "labels": self._describe_labels(state, reviewer, [] if hidden else wanted),
            "gone": [],
            "last": decisions[-1].number if decisions else 0,
            "undoable": own.number if own else None,
            "hidden": hidden,
        }

    def list_regions(self, image_id, reviewer):
        """
        The squares of a slide in which there are labels.

        Args:
            image_id (int): of the slide.
            reviewer (str): whose progress.

        Returns:
            dict: ``side`` of a square in px of the slide, and ``regions`` (list of dict): ``left``
            and ``top`` in px, numbers of labels ``accepted``, ``rejected`` and ``unreviewed``,
            ``doubt`` (what the unreviewed ones lack to be certain, summed up) and ``fat`` (share
            of the square that boxes of labels cover); the most doubtful first.
        """
        state = self.state(image_id)
        places = self._places_of(image_id)
        added = Places.of(
            (label for label_id, label in state.labels.items() if label_id not in places.known),
            mpp=self.label_file.images[image_id].get("mpp"),
        )
        regions: dict[tuple[int, int], dict] = {}
        for each in (places, added):
            squares = each.squares().tolist()
            areas = (each.boxes_xywh[:, 2] * each.boxes_xywh[:, 3]).tolist()
            for label_id, square, area_px in zip(each.ids.tolist(), squares, areas, strict=True):
                if label_id in state.labels:
                    region = regions.setdefault(tuple(square), _empty_region(square, each.side_px))
                    verdict = state.screening(label_id, reviewer)
                    score = state.labels[label_id].score
                    region[verdict] += 1
                    region["fat"] += area_px / each.side_px**2
                    if verdict == UNREVIEWED:
                        region["doubt"] += 1 - score if score is not None else 1
        ordered = sorted(regions.values(), key=lambda one: (-one["doubt"], one["top"], one["left"]))
        return {"side": places.side_px, "regions": ordered}

    def decide(self, image_id, reviewer, action, *, revisions=None, points_xy=(), undoes=None):
        """
        Make a decision; it is on disk when this returns.

        Args:
            image_id (int): of the image.
            reviewer (str): who decides.
            action (str): ``accept``, ``reject``, ``merge``, ``split``, ``redraw``, ``draw`` or
                ``undo``.
            revisions (dict): id (int) of each label that it is about -> its ``revision`` when the
                reviewer saw it.
            points_xy (list[tuple[float, float]]): the line to split along, or the new outline;
                (x, y) in px of the image.
            undoes (int): number of the decision to undo: the reviewer's last on this image.

        Raises:
            Conflict: the label, or what is to be undone, has changed since the reviewer saw it.
            Unusable: the line cuts nothing, the outline encloses nothing, or labels are too few.
        """

        def make_entry(decisions):
            state = self._apply(image_id, decisions)
            if action == UNDO:
                _check_undo(state, reviewer, undoes)
                return Entry(reviewer, UNDO, undoes=undoes)
            label_ids = tuple(sorted(revisions or {}))
            _check_revisions(state, reviewer, revisions or {})
            _check_number(action, len(label_ids))
            masks = [state.labels[label_id].rle for label_id in label_ids]
            rles = self._edit(image_id, action, masks, points_xy)
            return Entry(reviewer, action, label_ids, tuple(rles))

        self.log.append(image_id, make_entry)

    def _apply(self, image_id, decisions):
        return apply_decisions(self.label_file.labels[image_id], decisions)

    def _places_of(self, image_id):
        if image_id not in self._places:
            image = self.label_file.images[image_id]
            labels = self.label_file.labels[image_id]
            self._places[image_id] = Places.of(labels, mpp=image.get("mpp"))
        return self._places[image_id]

    def _find_in_window(self, image_id, state, window_xyxy):
        """Ids of the labels in a window: the file's by their tree, those of edits one by one."""
        places = self._places_of(image_id)
        added = [label for label_id, label in state.labels.items() if label_id not in places.known]
        found = places.in_window(window_xyxy) + Places.of(added).in_window(window_xyxy)
        return sorted(label_id for label_id in found if label_id in state.labels)

    def _edit(self, image_id, action, masks, points_xy):
        """Masks of the labels that an action makes."""
        if action in JUDGEMENTS:
            return []
        if action == "merge":
            return [merge_masks(masks)]
        if action == "split":
            if len(points_xy) < 2:
                raise Unusable("A line needs two points.")
            try:
                return split_mask(masks[0], points_xy)
            except ValueError as error:
                raise Unusable(str(error)) from None
        image = self.label_file.images[image_id]
        rle = encode_geometry(
            close_outline(points_xy), height=image["height"], width=image["width"]
        )
        if rle is None:
            raise Unusable("The outline encloses no pixel of the image.")
        return [rle]

    def _describe_labels(self, state, reviewer, label_ids):
        self._trace([state.labels[label_id] for label_id in label_ids])
        records = []
        for label_id in label_ids:
            label, shape = state.labels[label_id], self._shapes[label_id]
            records.append(
                {
                    "id": label_id,
                    "path": shape.path,
                    "box": shape.box_xywh,
                    "area_px": shape.area_px,
                    # None sorts last: a person has drawn it
                    "certainty": label.score if self._has_scores else round(shape.solidity, 4),
                    "verdict": state.screening(label_id, reviewer),
                    "revision": state.revision(label_id, reviewer),
                }
            )
        return records

    def _trace(self, labels):
        """Outline and measure those labels that are not yet."""
        new = [label for label in labels if label.id not in self._shapes]
        instances = [label.as_instance() for label in new]
        solidity = [
            value
            for batch in split_in_batches(instances)
            for value in measure_solidity(stack_instances(batch))
        ]
        for label, instance, polygons, share in zip(
            new, instances, trace_outlines(instances), solidity, strict=True
        ):
            height, width = instance.crop.shape
            self._shapes[label.id] = Shape(
                path="".join(_as_path(ring) for polygon in polygons for ring in polygon),
                box_xywh=[instance.left, instance.top, width, height],
                area_px=int(np.count_nonzero(instance.crop)),
                solidity=float(share),
            )


def _empty_region(square, side_px):
    row, column = square
    counts = dict.fromkeys((ACCEPTED, REJECTED, UNREVIEWED), 0)
    return counts | {"left": column * side_px, "top": row * side_px, "doubt": 0.0, "fat": 0.0}


def _count(state, reviewer):
    counts = dict.fromkeys((ACCEPTED, REJECTED, UNREVIEWED), 0)
    for label_id in state.labels:
        counts[state.screening(label_id, reviewer)] += 1
    return counts


def _as_path(ring_xy):
    """SVG path of a closed ring whose sides are horizontal and vertical in turn."""
    steps = [f"h{dx}" if dx else f"v{dy}" for dx, dy in np.diff(ring_xy[:-1], axis=0).tolist()]
    x, y = ring_xy[0].tolist()
    return f"M{x} {y}{''.join(steps)}z"


def _mentioned_since(decisions, number):
    """Ids of the labels that later decisions are about, or those that they undo."""
    by_number = {decision.number: decision for decision in decisions}
    about: set[int] = set()
    for decision in decisions:
        if decision.number > number:
            about |= decision.mentioned
            if decision.undoes is not None:
                about |= by_number[decision.undoes].mentioned
    return about


def _check_number(action, n_labels):
    least, most = {"merge": (2, None), "split": (1, 1), "redraw": (1, 1), "draw": (0, 0)}.get(
        action, (1, None)
    )
    if n_labels < least or (most is not None and n_labels > most):
        expected = least if most == least else f"{least} or more"
        raise Unusable(f"To {action} takes {expected} labels; got {n_labels}.")


def _check_revisions(state, reviewer, revisions):
    for label_id, revision in revisions.items():
        if label_id not in state.labels:
            verdicts = state.verdicts.get(label_id, {}).items()
            editor = next(
                (name for name, verdict in verdicts if verdict.value == EDITED), "Someone"
            )
            raise Conflict(f"{editor} has changed this outline in the meantime.")
        if state.revision(label_id, reviewer) != revision:
            raise Conflict(f"{reviewer} has judged this label elsewhere in the meantime.")


def _check_undo(state, reviewer, number):
    last = state.last_of(reviewer)
    if last is None:
        raise Unusable("There is nothing left to undo on this image.")
    if last.number != number:
        raise Conflict(f"{reviewer} has decided elsewhere in the meantime.")
    made = {label.id for label in last.added}
    for later in state.effective:
        if later.number > number and made & set(later.label_ids):
            raise Unusable(
                f"{later.reviewer} has worked with this outline since; it can no longer be undone."
            )
