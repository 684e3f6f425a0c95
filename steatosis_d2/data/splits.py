"""Which sample is for training, validation and test: from a file, or by a hash of its case."""

import hashlib
import json
import logging

from steatosis_d2.errors import InputError

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)


def choose_splits(samples, *, file=None, fractions=None, look_in=()):
    """
    Split by a file if there is one, else by case.

    Args:
        samples (list[Sample]): all samples of the data set.
        file (Path or None): a splits file, as :func:`read_splits` takes it.
        fractions (sequence or None): parts of the cases for train, val and test; with them, no
            file is looked for.
        look_in (sequence[Path]): folders whose ``splits.json`` is taken if neither is given.

    Returns:
        dict[str, list[Sample]]: ``train``, ``val`` and ``test``.

    Raises:
        InputError: as :func:`read_splits` and :func:`split_as_listed`.
    """
    if file is None and fractions is None:
        found = [folder / "splits.json" for folder in look_in]
        file = next((path for path in found if path.is_file()), None)
    if file is None:
        logger.info("no splits file: cases are split by a hash of their names")
        return split_by_case(samples, fractions or DEFAULT_FRACTIONS)
    logger.info("splits are taken from '%s'", file)
    return split_as_listed(samples, read_splits(file), file=file)


def read_splits(file):
    """
    Read a splits file: ``{"train": [names], "val": [names], "test": [names]}``.

    Args:
        file (Path): JSON; a split that is left out is empty.

    Returns:
        dict[str, list[str]]: names of the three splits.

    Raises:
        InputError: it is missing, no JSON, or not of this form.
    """
    if not file.is_file():
        raise InputError(f"splits file '{file}' does not exist; check the path.")
    form = 'expected JSON like {"train": ["name", ...], "val": [...], "test": [...]}'
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"splits file '{file}' is not JSON ({error}); {form}.") from None
    if not isinstance(content, dict) or not content or content.keys() - set(SPLITS):
        found = list(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"splits file '{file}' holds {found}; {form}.")
    for split, names in content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"splits file '{file}': '{split}' is no list of names; {form}.")
    return {split: content.get(split, []) for split in SPLITS}


def split_as_listed(samples, names, *, file):
    """
    Split as a file says; samples that it does not name are left out, and the log says which.

    Args:
        samples (list[Sample]): all samples of the data set.
        names (dict[str, list[str]]): split -> names of samples or of their image files.
        file (Path): where the names are from, for messages.

    Returns:
        dict[str, list[Sample]]: ``train``, ``val`` and ``test``, in order of their names.

    Raises:
        InputError: a name is not among the samples, or a case is in two splits.
    """
    known = {sample.image_path.name: sample for sample in samples}
    known |= {sample.name: sample for sample in samples}
    unknown = [name for split in SPLITS for name in names[split] if name not in known]
    if unknown:
        raise InputError(
            f"splits file '{file}' names {len(unknown)} images that are not in the source, the "
            f"first is '{unknown[0]}'. Correct the names, complete the source, or split by case "
            "with --fractions."
        )
    listed = {split: sorted({known[name] for name in names[split]}) for split in SPLITS}
    _check_cases_apart(listed, file)
    left_out = sorted(set(samples).difference(*listed.values()))
    if left_out:
        logger.warning(
            "%d of %d images are in no split of '%s' and are LEFT OUT: %s",
            len(left_out),
            len(samples),
            file,
            ", ".join(sample.name for sample in left_out),
        )
    return listed


def split_by_case(samples, fractions):
    """
    Split so that all images of a case stay together, the same way on every machine.

    Cases are ordered by the SHA-256 of their names. Each split that is wanted gets a case if there
    are enough, train first; the rest follows the fractions.

    Args:
        samples (list[Sample]): all samples of the data set, in any order.
        fractions (sequence[float]): parts of the cases for train, val and test; their sum is 1.

    Returns:
        dict[str, list[Sample]]: ``train``, ``val`` and ``test``, in order of their names.
    """
    cases = sorted({sample.case for sample in samples}, key=_hash_of_name)
    split_of_case = dict(zip(cases, _deal(len(cases), fractions), strict=True))
    return {
        split: sorted(sample for sample in samples if split_of_case[sample.case] == split)
        for split in SPLITS
    }


def _hash_of_name(name):
    return hashlib.sha256(name.encode("utf-8")).hexdigest()


def _deal(count, fractions):
    """The split of each of ``count`` cases: always to the split that lacks most."""
    wanted = {split: part * count for split, part in zip(SPLITS, fractions, strict=True) if part}
    counts = dict.fromkeys(wanted, 0)
    dealt = []
    for _ in range(count):
        split = max(wanted, key=lambda split: (counts[split] == 0, wanted[split] - counts[split]))
        counts[split] += 1
        dealt.append(split)
    return dealt


def _check_cases_apart(listed, file):
    seen: dict[str, tuple] = {}
    for split, samples in listed.items():
        for sample in samples:
            other_split, other = seen.setdefault(sample.case, (split, sample))
            if other_split != split:
                raise InputError(
                    f"splits file '{file}' puts case '{sample.case}' in two splits: "
                    f"'{other.name}' in {other_split}, '{sample.name}' in {split}. Images of one "
                    "case look alike and would make the figures too good; keep them together."
                )
