"""What an image's labels and verdicts are after a list of decisions."""

from dataclasses import dataclass, field, replace

from steatosis_d2.screening.labels import ACCEPTED, REJECTED, Label

EDITED = "edited"
UNDO = "undo"
# What each action that judges makes of a label; every other action but UNDO edits outlines.
JUDGEMENTS = {"accept": ACCEPTED, "reject": REJECTED}
EDITS = ("merge", "split", "redraw", "draw")


@dataclass(frozen=True, eq=False)
class Decision:
    """
    One entry of the log.

    Attributes:
        number (int): ascending in the order of the decisions of all images.
        made_at (str): ISO 8601, UTC.
        reviewer (str): who decided.
        image_id (int): on which image.
        action (str): a key of :data:`JUDGEMENTS`, one of :data:`EDITS`, or :data:`UNDO`.
        label_ids (tuple[int, ...]): labels that were judged, or replaced by an edit.
        added (tuple[Label, ...]): labels that an edit made.
        undoes (int or None): number of the decision that an UNDO takes back.
    """

    number: int
    made_at: str
    reviewer: str
    image_id: int
    action: str
    label_ids: tuple[int, ...]
    added: tuple[Label, ...] = ()
    undoes: int | None = None

    @property
    def mentioned(self):
        """Ids of all labels that this decision is about (set[int])."""
        return {*self.label_ids, *(label.id for label in self.added)}


@dataclass(frozen=True)
class Verdict:
    """
    What a reviewer thinks of a label.

    Attributes:
        value (str): ``accepted``, ``rejected``, or ``edited``: not good as it was.
        decision (int): number of the decision.
    """

    value: str
    decision: int


@dataclass(frozen=True, eq=False)
class ImageState:
    """
    An image's labels as they stand.

    Attributes:
        labels (dict): id (int) -> Label, without those that an edit replaced.
        verdicts (dict): id (int) of any label, replaced ones too -> reviewer (str) -> Verdict.
        effective (list[Decision]): those that were not undone, in order.
    """

    labels: dict[int, Label]
    verdicts: dict[int, dict[str, Verdict]] = field(default_factory=dict)
    effective: list[Decision] = field(default_factory=list)

    def revision(self, label_id, reviewer):
        """Number of the reviewer's last decision on a label (int); 0 if there is none."""
        verdict = self.verdicts.get(label_id, {}).get(reviewer)
        return verdict.decision if verdict else 0

    def screening(self, label_id, reviewer=None):
        """
        Whether a label is accepted, rejected or unreviewed.

        Args:
            label_id (int): of a label that is not replaced.
            reviewer (str or None): whose verdict counts; None for the latest of anyone's.

        Returns:
            str: the verdict; where there is none, what the file of labels says.
        """
        verdicts = self.verdicts.get(label_id, {})
        if reviewer is not None:
            verdicts = {name: verdict for name, verdict in verdicts.items() if name == reviewer}
        latest = max(verdicts.values(), key=lambda verdict: verdict.decision, default=None)
        return latest.value if latest else self.labels[label_id].screening

    def screened_labels(self, reviewer=None):
        """
        The labels as they stand, each with its verdict.

        Args:
            reviewer (str or None): as for :meth:`screening`.

        Returns:
            list[Label]: by id.
        """
        return [
            replace(self.labels[label_id], screening=self.screening(label_id, reviewer))
            for label_id in sorted(self.labels)
        ]

    def last_of(self, reviewer):
        """The reviewer's last decision that stands (Decision), or None."""
        own = (decision for decision in self.effective if decision.reviewer == reviewer)
        return max(own, key=lambda decision: decision.number, default=None)


def apply_decisions(labels, decisions):
    """
    The state of an image: its labels as the file gives them, and then every decision in order.

    Whoever edits an outline accepts what is drawn, and takes nothing for good that is replaced.
    A decision that was undone counts as if it had never been made.

    Args:
        labels (list[Label]): of the image, from the file of labels.
        decisions (list[Decision]): on the image, in order.

    Returns:
        ImageState: as it stands after the last decision.
    """
    undone = {decision.undoes for decision in decisions}
    state = ImageState({label.id: label for label in labels})
    for decision in decisions:
        if decision.action == UNDO or decision.number in undone:
            continue
        state.effective.append(decision)
        value = JUDGEMENTS.get(decision.action, EDITED)
        edited = [state.labels[label_id] for label_id in decision.label_ids]
        category = edited[0].category if edited else ""
        for label_id in decision.label_ids:
            _note(state, label_id, decision, value)
            if value == EDITED:
                del state.labels[label_id]
        for label in decision.added:
            state.labels[label.id] = replace(label, category=category)
            _note(state, label.id, decision, ACCEPTED)
    return state


def _note(state, label_id, decision, value):
    verdict = Verdict(value, decision.number)
    state.verdicts.setdefault(label_id, {})[decision.reviewer] = verdict
