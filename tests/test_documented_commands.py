"""The training commands in the documents name configs and keys that exist."""

import re
import shlex
from pathlib import Path

import pytest

from steatosis_d2.engine.schedule import plan_stages
from steatosis_d2.model_zoo import get_config

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "configs/README.md", "datasets/README.md")


def documented_commands():
    for document in DOCUMENTS:
        text = (REPOSITORY / document).read_text().replace("\\\n", " ")
        for command in re.findall(r"tools/train_net\.py (--config-file [^`\n]+)", text):
            yield pytest.param(shlex.split(command, comments=True), id=f"{document}: {command}")


@pytest.mark.parametrize("words", list(documented_commands()))
def test_training_command_is_valid(words):
    config_file = REPOSITORY / words[words.index("--config-file") + 1]
    first_key = next((i for i, word in enumerate(words) if re.match(r"[A-Z]+\.", word)), len(words))
    cfg = get_config(config_file, words[first_key:])
    gpus = int(words[words.index("--num-gpus") + 1]) if "--num-gpus" in words else 1
    machines = int(words[words.index("--num-machines") + 1]) if "--num-machines" in words else 1
    assert cfg.SOLVER.IMS_PER_BATCH % (gpus * machines * cfg.SOLVER.ACCUMULATE) == 0
    assert plan_stages(cfg, n_images=387)[-1].end > 0
