"""The metrics of Guo et al. (ISBI 2019), as the authors' public code computes them."""

import numpy as np

PAPER_METRICS = ("paper_ap50", "paper_precision", "paper_recall", "paper_f1", "paper_jaccard")
HIT_IOU = 0.5


def paper_metrics(best_ious, *, n_truths):
    """
    Metrics of one image after Guo et al. 2019, section 3 (Table 1).

    Each prediction takes the true mask that it overlaps most, so two may take the same one: a
    doubled prediction counts twice, and lifts ``paper_ap50`` and ``paper_recall`` even above 1.
    Read these figures only beside one-to-one F1 and PQ of the same predictions.

    Args:
        best_ious (array-like): float, shape (N,), each prediction's highest overlap with a true
            mask (0 where there is none), in descending order of the scores.
        n_truths (int): number of true masks.

    Returns:
        dict: ``paper_ap50``, ``paper_precision``, ``paper_recall``, ``paper_f1`` and
        ``paper_jaccard``, as fractions. An image without truth and without predictions is a
        success (1); where only one of the two is empty, all are 0.

    Examples:
        >>> paper_metrics([0.8, 0.3], n_truths=1)["paper_ap50"]
        1.0
    """
    best_ious = np.asarray(best_ious, dtype=float)
    n_predictions = len(best_ious)
    if not n_predictions or not n_truths:
        return dict.fromkeys(PAPER_METRICS, float(n_predictions == n_truths))
    hits = np.cumsum(best_ious >= HIT_IOU)
    precision = np.concatenate([[0], hits / np.arange(1, n_predictions + 1), [0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0], hits / n_truths, [1]])
    mean_precision, mean_recall = precision.mean(), recall.mean()
    return {
        "paper_ap50": float(np.sum(np.diff(recall) * precision[1:])),
        "paper_precision": float(mean_precision),
        "paper_recall": float(mean_recall),
        "paper_f1": float(2 * mean_precision * mean_recall / (mean_precision + mean_recall)),
        "paper_jaccard": float(best_ious.sum() / (n_predictions + 2)),
    }
