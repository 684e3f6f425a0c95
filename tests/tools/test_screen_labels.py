"""tools/screen_labels.py as a user runs it, without the page."""

import contextlib
import csv
import functools
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from steatosis_d2.cli import screen as screen_command
from steatosis_d2.data.coco import read_coco
from steatosis_d2.screening.labels import read_labels
from steatosis_d2.screening.log import DecisionLog, Entry

TOOL = "tools/screen_labels.py"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def screen(run_script, disks):
    """A function: (command, *options) -> process, on the labels of the disks."""

    def run(command, *options, labels=disks / "annotations.json"):
        return run_script(TOOL, command, labels, *options)

    return run


@pytest.fixture
def decide(disks):
    """A function that puts an entry into the default file of decisions."""
    label_file = read_labels(disks / "annotations.json")
    log = DecisionLog(disks / "annotations.screening.sqlite", label_file, create=True)
    return lambda image_id, *entry: log.append(image_id, lambda decisions: Entry(*entry))


def annotations(path):
    return {one["id"]: one for one in read_coco(path)["annotations"]}


def test_round_trip_through_qupath_without_edits(screen, disks):
    qupath, output = disks / "qupath", disks / "screened.json"
    done = screen("export", "--images", disks / "images", "--output", qupath)
    assert (done.returncode, done.stdout) == (0, f"12 labels in 5 files: {qupath}\n")
    assert sorted(path.name for path in qupath.iterdir()) == [
        f"tile_{number}.geojson" for number in range(1, 6)
    ]
    done = screen("import", "--geojson", qupath, "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{qupath}/tile_5.geojson: no labels\n" in done.stdout
    assert "in all: 12 unchanged" in done.stdout
    before = annotations(disks / "annotations.json")
    assert annotations(output) == {
        number: one | {"screening": "unreviewed"} for number, one in before.items()
    }


def test_edits_in_qupath_are_said_and_taken(screen, disks):
    qupath, output = disks / "qupath", disks / "screened.json"
    screen("export", "--images", disks / "images", "--output", qupath, "--objects", "annotation")
    path = qupath / "tile_1.geojson"
    features = json.loads(path.read_text())["features"]
    features[1]["properties"]["classification"] = {"name": "rejected"}
    bow_tie = [[[0, 80], [12, 92], [12, 80], [0, 92], [0, 80]]]
    features[0] = {"type": "Polygon", "coordinates": bow_tie}
    path.write_text(json.dumps(features))
    done = screen("import", "--geojson", qupath, "--output", output)
    assert done.returncode == 0
    assert f"{path}: 1 unchanged, 1 rejected, 1 deleted, 1 added\n" in done.stdout
    assert "object number 1 crossed itself; mended" in done.stdout
    assert f"{output}: 1 accepted, 2 rejected, 10 unreviewed" in done.stdout
    written = annotations(output)
    assert {i: (a["screening"], a["iscrowd"]) for i, a in written.items() if i in (1, 2, 13)} == {
        1: ("rejected", 1),
        2: ("rejected", 1),
        13: ("accepted", 0),
    }


def test_rejected_labels_are_left_out_when_asked(screen, decide, disks):
    decide(1, "Ann", "reject", (1, 2))
    output = disks / "screened.json"
    done = screen("merge", "--output", output, "--rejected", "drop", "--unreviewed", "ignore")
    assert done.returncode == 0
    written = annotations(output)
    assert sorted(written) == list(range(3, 13))
    assert {one["iscrowd"] for one in written.values()} == {1}


def test_bad_files_are_named_and_the_others_taken(screen, disks):
    qupath, output = disks / "qupath", disks / "screened.json"
    screen("export", "--images", disks / "images", "--output", qupath)
    (qupath / "tile_2.geojson").write_text("<xml/>")
    (qupath / "tile_3.geojson").unlink()
    (qupath / "other.geojson").write_text("{}")
    done = screen("import", "--geojson", qupath, "--output", output)
    assert done.returncode == 1
    assert "tile_2.geojson' is not GeoJSON" in done.stderr
    assert "other.geojson' belongs to no image" in done.stderr
    assert "1 of 5 images have no GeoJSON file: left as they were" in done.stdout
    assert len(annotations(output)) == 12


def test_merge_prints_counts_and_agreement(screen, decide, disks):
    decide(1, "Ann", "accept", (1, 2, 3))
    decide(1, "Ben", "accept", (1, 2))
    decide(1, "Ben", "reject", (3,))
    output = disks / "screened.json"
    done = screen("merge", "--output", output)
    assert done.returncode == 0
    assert f"{output}: 2 accepted, 1 rejected, 9 unreviewed\n" in done.stdout
    assert "Ann and Ben: 3 labels judged by both, 66.7% alike, Cohen's kappa 0.000" in done.stdout
    done = screen("merge", "--output", output, "--reviewer", "Ann")
    assert "3 accepted, 0 rejected, 9 unreviewed" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["merge", "--output", "{}/o.json"], r"screening.sqlite' does not exist; screen the"),
        (["export", "--images", "{}", "--output", "{}/q"], "5 of the 5 images of"),
        (["import", "--geojson", "{}/images", "--output", "{}/o.json"], "no GeoJSON files of any"),
        (["serve", "--images", "{}/none"], "none' does not exist"),
    ],
)
def test_wrong_input_is_one_clear_line(screen, disks, options, message):
    done = screen(*(option.format(disks) for option in options))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message in done.stderr


def test_unknown_reviewer_is_named(screen, decide, disks):
    decide(1, "Ann", "accept", (1,))
    done = screen("merge", "--output", disks / "o.json", "--reviewer", "Eve")
    assert done.returncode == 1
    assert "no decisions of a reviewer 'Eve'; it has those of 'Ann'" in done.stderr


def test_image_outside_the_folder_is_refused(screen, disks):
    content = read_coco(disks / "annotations.json")
    content["images"][0]["file_name"] = "../../etc/passwd"
    (disks / "bad.json").write_text(json.dumps(content))
    for command in (["serve"], ["export", "--output", disks / "q"]):
        done = screen(*command, "--images", disks / "images", labels=disks / "bad.json")
        assert done.returncode == 1
        assert "'../../etc/passwd', which leads out of the image folder" in done.stderr


def test_images_are_ranked_by_disagreement(screen, disks):
    predictions = read_coco(disks / "annotations.json")
    predictions["annotations"] = [
        one | {"score": 1.0} for one in predictions["annotations"] if one["id"] not in (7, 8, 12)
    ]
    (disks / "predictions.json").write_text(json.dumps(predictions))
    table = disks / "rank.csv"
    options = ["--predictions", disks / "predictions.json", "--output", table, "--limit", "2"]
    done = screen("rank", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == [
        "tile_3.png",
        "tile_4.png",
    ]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["objects_in_doubt"]) for row in rows] == [2, 1, 0, 0, 0]
    assert rows[0]["unmatched_labels"] == "2"
    assert rows[0]["share"] == str(2 / 3)


def test_neither_torch_nor_detectron2_is_loaded():
    """Nor what only the page needs: exchange with QuPath works without a web server."""
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(REPOSITORY / TOOL)!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    print({'torch', 'detectron2', 'fastapi', 'pandas'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("set()\n"), done.stderr


@pytest.fixture(scope="module")
def parse():
    """The tool's own parser: (*words) -> arguments."""
    return lambda *words: screen_command.build_parser("screen_labels.py").parse_args(words)


@pytest.mark.parametrize("command", ["serve", "merge", "export", "import", "rank"])
def test_every_command_has_help(parse, capsys, command):
    with pytest.raises(SystemExit, match="0"):
        parse(command, "--help")
    assert "LABELS.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [[], ["merge", "a.json"], ["export", "a.json", "--output", "x"], ["serve", "a", "--port", "b"]],
)
def test_wrong_usage_exits_with_2(parse, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        parse(*words)
    assert capsys.readouterr().err.startswith("usage: screen_labels.py")


def test_commands_of_the_guide_are_understood(parse):
    text = (REPOSITORY / "docs/label-and-review.md").read_text()
    commands = re.findall(r"steatosis-d2 screen ([^#`\n]+)", text)
    assert {parse(*shlex.split(command)).run.__name__ for command in commands} == {
        "serve",
        "merge",
        "export",
        "import_",
        "rank",
        "compare",
    }


@contextlib.contextmanager
def running_server(folder, *options):
    """A server of the disks: the process and its address, without and with token."""
    command = [sys.executable, REPOSITORY / TOOL, "serve", folder / "annotations.json"]
    process = subprocess.Popen(
        [*command, "--images", folder / "images", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in a shell's background inherit that Ctrl-C is ignored; users do not.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        process.stdout.readline()
        yield process, *re.search(r"(http\S+)\?token=(\S+)", process.stdout.readline()).groups()
    finally:
        process.kill()
        process.communicate()


def post(url, token, reviewer, action, labels):
    content = {"reviewer": reviewer, "action": action, "labels": labels, "since": 0}
    request = urllib.request.Request(
        f"{url}api/images/1/decisions",
        json.dumps(content).encode(),
        {"X-Token": token, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_what_was_answered_is_on_disk_when_the_server_is_killed(disks):
    pytest.importorskip("fastapi")
    answered = []
    with running_server(disks, "--port", "0") as (process, url, token):

        def decide_on_and_on():
            revision = 0
            with contextlib.suppress(OSError):
                while True:
                    [label] = post(url, token, "Ann", "accept", {1: revision})["labels"][-1:]
                    revision = label["revision"]
                    answered.append(revision)
                    if len(answered) == 20:
                        enough.set()

        enough = threading.Event()
        thread = threading.Thread(target=decide_on_and_on)
        thread.start()
        assert enough.wait(60)
        process.send_signal(signal.SIGKILL)
        thread.join(60)
    label_file = read_labels(disks / "annotations.json")
    log = DecisionLog(disks / "annotations.screening.sqlite", label_file)
    stored = [decision.number for decision in log.read(1)]
    # One that was written when the server died, but not yet answered, may be there as well.
    assert stored[: len(answered)] == answered
    assert len(stored) <= len(answered) + 1


def test_ctrl_c_ends_the_server_and_a_busy_port_is_named(disks, screen):
    pytest.importorskip("fastapi")
    with running_server(disks, "--port", "0") as (process, url, token):
        port = re.search(r":(\d+)/", url)[1]
        done = screen("serve", "--images", disks / "images", "--port", port)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"cannot listen on 127.0.0.1, port {port}" in done.stderr
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url)
        post(url, token, "Ann", "accept", {1: 0})
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "interrupted\n")
