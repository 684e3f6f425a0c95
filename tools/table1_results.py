"""What trainings and other methods have reached, one file each: the source of tools/table1.py."""

import json
import shlex
from dataclasses import asdict, dataclass

from steatosis_d2.errors import InputError
from steatosis_d2.files import write_json


@dataclass(frozen=True)
class Training:
    """
    A training that is done.

    Attributes:
        seed (int): that it was begun with.
        steps (int): how many it took.
        hours (float): that they took.
        machine (str): on which.
        command (str): by which.
        conditions (dict): what figures depend on -> how it was.
    """

    seed: int
    steps: int
    hours: float
    machine: str
    command: str
    conditions: dict


@dataclass(frozen=True)
class Figure:
    """
    A figure of one test set, and what each image adds to it.

    Attributes:
        value (float): itself.
        part, whole (list or None): a number for each image; their sums' ratio is the figure. None
            for COCO AP, which is no such ratio.
    """

    value: float
    part: list[float] | None
    whole: list[float] | None


@dataclass(frozen=True)
class Result:
    """
    What one training, or a method that needs none, has reached.

    Attributes:
        method (str): what its row is called.
        training (Training or None): how it was trained.
        figures (dict): test set -> heading -> :class:`Figure`.
        images (dict): test set -> names of its images.
    """

    method: str
    training: Training | None
    figures: dict
    images: dict


def write_result(folder, result):
    """Write a result into a folder, under a name of its own."""
    seed = f"_seed-{result.training.seed}" if result.training else ""
    write_json(folder / f"{result.method}{seed}.json", asdict(result))


def read_results(folder):
    """
    All results of a folder.

    Returns:
        list[Result]: those that were trained by seeds that every network has, and all others.

    Raises:
        InputError: no seed is common to all networks, trainings of one differ in more than the
            seed, or results are of different images.
    """
    results = [_read_result(file) for file in sorted(folder.glob("*.json"))]
    seeds = {}
    for result in results:
        if result.training:
            seeds.setdefault(result.method, set()).add(result.training.seed)
    common = set.intersection(*seeds.values()) if seeds else set()
    if not common:
        raise InputError(
            f"'{folder}' has no seed by which every network is trained; run "
            "tools/reproduce_table1.sh to its end."
        )
    for result in results:
        if result.images != results[0].images:
            raise InputError(
                f"in '{folder}' {result.method} was measured on other images than "
                f"{results[0].method}; put results of the same images together."
            )
    conditions: dict[str, dict] = {}
    for result in results:
        if result.training:
            here = result.training.conditions
            if conditions.setdefault(result.method, here) != here:
                raise InputError(
                    f"in '{folder}' the trainings of {result.method} differ in more than the seed; "
                    "put trainings of one recipe together."
                )
    return [one for one in results if one.training is None or one.training.seed in common]


def _read_result(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    training = content["training"] and Training(**content["training"])
    figures = {
        test_set: {heading: Figure(**figure) for heading, figure in of_set.items()}
        for test_set, of_set in content["figures"].items()
    }
    return Result(content["method"], training, figures, content["images"])


def read_command(folder):
    """The command whose words a folder's ``command.txt`` holds, one a line, as it is typed."""
    file = folder / "command.txt"
    if not file.is_file():
        raise InputError(f"'{folder}' has no command.txt; copy it there with the results.")
    words = file.read_text(encoding="utf-8").splitlines()
    return " ".join(f'"{word}"' if shlex.quote(word) != word else word for word in words)
