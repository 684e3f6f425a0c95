"""What the documents promise: links lead somewhere, commands are understood, configs exist."""

import ast
import functools
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from steatosis_d2 import cli
from steatosis_d2.engine.schedule import plan_stages
from steatosis_d2.model_zoo import get_config

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for folder in (".", "docs", "configs", "datasets", "steatosis_d2/model_zoo/weights")
    for path in (REPOSITORY / folder).glob("*.md")
)
SCRIPTS = {
    "tools/segment.py": "segment",
    "tools/generate_labels.py": "label",
    "tools/screen_labels.py": "screen",
    "tools/train_net.py": "train",
    "tools/evaluate.py": "evaluate",
    "tools/export_weights.py": "export",
    "datasets/make_synthetic_liver.py": "prepare_synthetic",
    "datasets/make_synthetic_slide.py": "prepare_slide",
    **{f"datasets/prepare_{name}.py": f"prepare_{name}" for name in cli.DATASETS},
}
# What else a line may begin with; these are not ours to test.
OTHERS = {"cd", "export", "git", "gunzip", "make", "pip", "python", "source", "ssh", "sudo", "uv"}


@functools.cache
def read(document):
    return (REPOSITORY / document).read_text()


def command_lines(document):
    """Lines of the shell in a document, as lists of words."""
    for block in re.findall(r"^```bash\n(.*?)^```", read(document), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
                words = words[1:]
            if words:
                yield words


def all_command_lines():
    return [
        pytest.param(words, id=f"{document}: {' '.join(words)}")
        for document in DOCUMENTS
        for words in command_lines(document)
    ]


def split_command(words):
    """The module in cli that a line calls, and the options it gives; None for what is not ours."""
    words = words[words.index("python") :] if words[0] == "srun" else words
    if words[0] == "torchrun":
        words = ["python", *words[words.index("tools/train_net.py") :]]
    if words[0] == "steatosis-d2":
        if words[1] == "prepare":
            return f"prepare_{words[2]}", words[3:]
        return words[1], words[2:]
    if words[0] == "python" and words[1] in SCRIPTS:
        return SCRIPTS[words[1]], words[2:]
    return None


@pytest.mark.parametrize("words", all_command_lines())
def test_command_is_understood(words, capsys):
    command = split_command(words)
    if command is None:
        check_other_command(words)
        return
    module, options = command
    parser = importlib.import_module(f"steatosis_d2.cli.{module}").build_parser("command")
    if options == ["--help"]:
        return
    try:
        parser.parse_args([word for word in options if word != ">"])
    except SystemExit:
        pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err}")


def check_other_command(words):
    script = words[1] if words[0] == "python" and len(words) > 1 else words[0]
    if script.startswith(("tools/", "datasets/")):
        assert os.access(REPOSITORY / script, os.R_OK), f"{script} does not exist"
        return
    assert words[0] in OTHERS, f"{words[0]} is not known to this test"
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = read("Makefile")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def scripts_with_own_options():
    """(script, options that documents give it) of what has no command of its own."""
    found: dict[str, set[str]] = {}
    for document in DOCUMENTS:
        for words in command_lines(document):
            if words[0] == "python" and words[1].startswith("tools/") and words[1] not in SCRIPTS:
                options = {word for word in words[2:] if word.startswith("--")}
                found.setdefault(words[1], set()).update(options)
    return sorted(found.items())


@pytest.mark.slow
@pytest.mark.parametrize(("script", "options"), scripts_with_own_options())
def test_options_of_a_script_are_in_its_help(script, options):
    done = subprocess.run(
        [sys.executable, REPOSITORY / script, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(option in done.stdout for option in options)


def training_commands():
    """Also those in tables, not in blocks of their own."""
    for document in DOCUMENTS:
        text = read(document).replace("\\\n", " ")
        for command in re.findall(
            r"(?:tools/train_net\.py|steatosis-d2 train) (--config-file [^`\n]+)", text
        ):
            yield pytest.param(shlex.split(command, comments=True), id=f"{document}: {command}")


@pytest.mark.parametrize("words", list(training_commands()))
def test_training_command_is_valid(words):
    config_file = REPOSITORY / words[words.index("--config-file") + 1]
    first_key = next((i for i, word in enumerate(words) if re.match(r"[A-Z]+\.", word)), len(words))
    cfg = get_config(config_file, words[first_key:])
    gpus = int(words[words.index("--num-gpus") + 1]) if "--num-gpus" in words else 1
    machines = int(words[words.index("--num-machines") + 1]) if "--num-machines" in words else 1
    assert cfg.SOLVER.IMS_PER_BATCH % (gpus * machines * cfg.SOLVER.ACCUMULATE) == 0
    assert plan_stages(cfg, n_images=387)[-1].end > 0


def anchors(document):
    """What GitHub and MkDocs make of the headings."""
    text = re.sub(r"```.*?```", "", read(document), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    words = (re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w -]", "", heading).strip().replace(" ", "-") for heading in words}


def links():
    for document in DOCUMENTS:
        text = re.sub(r"```.*?```", "", read(document), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                yield pytest.param(document, target, id=f"{document}: {target}")


@pytest.mark.parametrize(("document", "target"), list(links()))
def test_link_leads_somewhere(document, target):
    path, _, anchor = target.partition("#")
    target_path = (REPOSITORY / document).parent / path if path else REPOSITORY / document
    assert target_path.exists(), f"{document} links to {path}"
    if anchor:
        name = target_path.resolve().relative_to(REPOSITORY).as_posix()
        assert anchor in anchors(name), f"{name} has no heading #{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_of_a_document_compiles(document):
    for code in re.findall(r"^```python\n(.*?)^```", read(document), re.DOTALL | re.MULTILINE):
        ast.parse(code)


@pytest.mark.slow
def test_site_builds_without_a_dead_link(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", tmp_path / "site"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.name for path in (tmp_path / "site").glob("*.html")}
    guides = {f"{path.stem}.html" for path in (REPOSITORY / "docs").glob("*.md")}
    assert guides | {"index.html", "networks.html", "card_liver.html"} <= pages
    api = (tmp_path / "site" / "api.html").read_text()
    assert all(f"steatosis_d2.api.{name}" in api for name in ("segment", "evaluate"))


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path):
    notebook = nbformat.read(REPOSITORY / "docs" / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3  # outlines, histogram, filtered outlines
    figures = ast.literal_eval(outputs[-1]["data"]["text/plain"])
    assert figures["f1"] > 0.75
    assert (tmp_path / "quickstart" / "results" / "report.html").is_file()


def test_readme_is_short():
    assert len(read("README.md").splitlines()) <= 150
