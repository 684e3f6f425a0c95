"""How far reviewers agree, label by label."""

import itertools
from collections import Counter
from dataclasses import dataclass


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
