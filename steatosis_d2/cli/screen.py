"""Let an expert accept, reject and mend labels, on a page in the browser or in QuPath."""

import argparse
import csv
import itertools
import logging
import secrets
import socket
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

from steatosis_d2.cli.option_types import positive_number
from steatosis_d2.data.coco import read_coco
from steatosis_d2.errors import InputError, needs_extra
from steatosis_d2.evaluation.image_pairs import pair_images
from steatosis_d2.files import replace_when_done
from steatosis_d2.screening import exchange
from steatosis_d2.screening.agreement import (
    compare_outlines,
    format_agreement,
    format_outline_agreement,
    measure_agreement,
)
from steatosis_d2.screening.labels import find_images, read_labels
from steatosis_d2.screening.log import DecisionLog
from steatosis_d2.screening.ranking import Disagreement, rank_images, skip_accepted
from steatosis_d2.screening.state import apply_decisions
from steatosis_d2.screening.training import DROP, IGNORE, KEEP, write_screened

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
ANY = ("0.0.0.0", "::")
EXAMPLES = """
on a page in the browser:
    %(prog)s serve labels.json --images tiles
    %(prog)s merge labels.json --output screened.json
in QuPath:
    %(prog)s export labels.json --images tiles --output qupath
    %(prog)s import labels.json --geojson qupath --output screened.json
where to look first, once a network is trained:
    %(prog)s rank screened.json --predictions predictions.json
    %(prog)s rank screened.json --predictions predictions.json --region-um 200
how far two experts agree who outlined the same tiles:
    %(prog)s compare anna.json ben.json
each has a --help of its own.
"""
HUMAN_CEILING = (
    "No network can be expected to agree with one expert better than another expert does."
)


def run(arguments):
    """Do what the subcommand says."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    arguments.run(arguments)


def build_parser(prog):
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_serve(commands)
    add_merge(commands)
    add_export(commands)
    add_import(commands)
    add_rank(commands)
    add_compare(commands)
    return parser


def add_command(commands, run, name, text):
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_argument("labels", metavar="LABELS.json", help="COCO file of labels")
    command.set_defaults(run=run)
    return command


def add_serve(commands):
    command = add_command(commands, serve, "serve", "show labels on a page in the browser")
    add_images(command)
    add_decisions(command)
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this computer alone; anything else "
        "sends the token unencrypted through the network: prefer an SSH tunnel)",
    )
    command.add_argument(
        "--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)"
    )


def add_merge(commands):
    command = add_command(
        commands, merge, "merge", "write labels and decisions as one COCO file to train on"
    )
    add_decisions(command)
    command.add_argument(
        "--reviewer", metavar="NAME", help="take this reviewer's verdicts (default: the latest)"
    )
    add_output(command)


def add_export(commands):
    command = add_command(commands, export, "export", "write one GeoJSON file an image for QuPath")
    add_images(command)
    command.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder")
    command.add_argument(
        "--objects",
        choices=("detection", "annotation"),
        default="detection",
        help="annotations can be edited in QuPath, detections only deleted and reclassified, but "
        "they stay quick by the thousand (default: %(default)s)",
    )


def add_import(commands):
    command = add_command(
        commands, import_, "import", "read back what QuPath saved, as a COCO file to train on"
    )
    command.add_argument(
        "--geojson",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of GeoJSON files named as the exported ones, gzipped (.geojson.gz) or not",
    )
    command.add_argument(
        "--accept-untouched",
        action="store_true",
        help="what QuPath leaves as it was is accepted, since all of it was looked at; without "
        "this it stays unreviewed",
    )
    add_output(command)


def add_rank(commands):
    command = add_command(
        commands,
        rank,
        "rank",
        "order images, or regions of slides, by how much labels and model disagree; what was "
        "accepted already is skipped",
    )
    command.add_argument(
        "--predictions", required=True, metavar="FILE", help="COCO file, same images"
    )
    command.add_argument(
        "--region-um",
        type=positive_number,
        metavar="UM",
        help="side of the squares that slides are divided into (default: whole images)",
    )
    command.add_argument("--output", metavar="FILE.csv", help="write the whole table")
    command.add_argument(
        "--limit", type=int, default=20, metavar="N", help="lines to print (default: %(default)s)"
    )


def add_compare(commands):
    text = "measure how far the outlines of two or more experts agree"
    command = commands.add_parser(
        "compare", help=text, description=f"{text[0].upper()}{text[1:]}. {HUMAN_CEILING}"
    )
    command.add_argument(
        "files", nargs="+", metavar="SCREENED.json", help="one COCO file an expert, same images"
    )
    command.set_defaults(run=compare)


def add_images(command):
    command.add_argument(
        "--images", required=True, type=Path, metavar="DIR", help="folder of the images"
    )


def add_decisions(command):
    command.add_argument(
        "--decisions",
        type=Path,
        metavar="FILE",
        help="where decisions are kept (default: LABELS.screening.sqlite beside the labels)",
    )


def add_output(command):
    command.add_argument("--output", required=True, metavar="FILE", help="COCO file to write")
    command.add_argument(
        "--rejected",
        choices=(IGNORE, DROP),
        default=IGNORE,
        help="rejected labels become areas to ignore (iscrowd), so that a droplet badly outlined "
        "is not taught as background, or are left out (default: %(default)s)",
    )
    command.add_argument(
        "--unreviewed",
        choices=(KEEP, IGNORE, DROP),
        default=KEEP,
        help="labels that nobody has judged are kept to train on, become areas to ignore, or are "
        "left out (default: %(default)s)",
    )


def serve(arguments):
    label_file = read_labels(arguments.labels)
    images = find_images(label_file, arguments.images)
    # What only the page needs takes longer to import than the other commands take.
    from steatosis_d2.screening.session import Screening

    with needs_extra("screening", "the page"):
        from steatosis_d2.screening.server import create_app, open_listener, run_app
    with open_listener(arguments.host, arguments.port) as listener:
        log = DecisionLog(decisions_path(arguments), label_file, create=True)
        token = secrets.token_urlsafe(16)
        app = create_app(Screening(label_file, log), images, token=token)
        port = listener.getsockname()[1]
        host = socket.gethostname() if arguments.host in ANY else arguments.host
        host = f"[{host}]" if ":" in host else host
        if arguments.host not in LOOPBACK:
            logger.warning(
                "others on the network can reach this page, and read along: the connection is not "
                "encrypted."
            )
        print(f"decisions are kept in {log.path}", flush=True)
        print(f"open http://{host}:{port}/?token={token} (Ctrl-C ends)", flush=True)
        run_app(app, listener)


def merge(arguments):
    label_file = read_labels(arguments.labels)
    log = DecisionLog(decisions_path(arguments), label_file)
    check_reviewer(arguments.reviewer, log)
    decisions = log.read_all()
    states = {
        image_id: apply_decisions(labels, decisions.get(image_id, []))
        for image_id, labels in label_file.labels.items()
    }
    labels = {
        image_id: state.screened_labels(arguments.reviewer) for image_id, state in states.items()
    }
    write_output(arguments, label_file, labels)
    for agreement in measure_agreement(states.values()):
        print(format_agreement(agreement))


def check_reviewer(name, log):
    known = log.list_reviewers()
    if name is not None and name not in known:
        raise InputError(
            f"'{log.path}' has no decisions of a reviewer '{name}'; it has those of "
            f"{', '.join(map(repr, known)) or 'nobody'}."
        )


def export(arguments):
    label_file = read_labels(arguments.labels)
    find_images(label_file, arguments.images)
    names = exchange.name_files(label_file)
    for image_id, labels in label_file.labels.items():
        exchange.write_labels(
            arguments.output / f"{names[image_id]}.geojson",
            labels,
            category=label_file.category,
            object_type=arguments.objects,
        )
    n_labels = sum(map(len, label_file.labels.values()))
    print(f"{n_labels} labels in {len(names)} files: {arguments.output}")


def import_(arguments):
    label_file = read_labels(arguments.labels)
    files, faults = exchange.find_files(label_file, arguments.geojson)
    labels = dict(label_file.labels)
    total: Counter = Counter()
    next_id = label_file.highest_id + 1
    for image_id, path in files.items():
        try:
            imported = exchange.import_labels(
                path,
                labels[image_id],
                label_file.images[image_id],
                categories=label_file.categories,
                first_free_id=next_id,
                accept_untouched=arguments.accept_untouched,
            )
        except InputError as error:
            faults.append(str(error))
            continue
        labels[image_id] = imported.labels
        next_id += imported.changes["added"]
        total += imported.changes
        print(f"{path}: {describe_changes(imported.changes)}")
        for remark in imported.remarks:
            print(f"    {remark}")
    write_output(arguments, label_file, labels)
    print(f"in all: {describe_changes(total)}")
    untouched = len(labels) - len(files)
    if untouched:
        print(f"{untouched} of {len(labels)} images have no GeoJSON file: left as they were")
    if faults:
        raise InputError("\nerror: ".join(faults))


def describe_changes(changes):
    return ", ".join(f"{changes[name]} {name}" for name in exchange.CHANGES if changes[name]) or (
        "no labels"
    )


def rank(arguments):
    pairs = pair_images(
        skip_accepted(read_coco(arguments.labels)),
        read_coco(arguments.predictions),
        truth_name=arguments.labels,
        predictions_name=arguments.predictions,
    )
    ranking = rank_images(pairs, region_um=arguments.region_um)
    if arguments.output:
        write_table(arguments.output, ranking)
    print("in doubt   share  labels  predictions  agreed  image")
    for one in ranking[: arguments.limit]:
        where = f", x {one.left_px}, y {one.top_px} px" if arguments.region_um else ""
        print(
            f"{one.objects_in_doubt:8.1f}  {one.share:5.1%}  {one.labels:6}  "
            f"{one.predictions:11}  {one.agreed:6}  {one.file_name}{where}"
        )


def write_table(path, ranking):
    with replace_when_done(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Disagreement)])
        writer.writeheader()
        writer.writerows(asdict(image) for image in ranking)


def compare(arguments):
    if len(arguments.files) < 2:
        raise InputError("one file has nothing to be compared with; give two or more.")
    contents = {path: read_coco(path) for path in arguments.files}
    for one, other in itertools.combinations(arguments.files, 2):
        print(format_outline_agreement(compare_outlines(contents, one, other)))


def decisions_path(arguments):
    return arguments.decisions or Path(arguments.labels).with_suffix(".screening.sqlite")


def write_output(arguments, label_file, labels):
    counts = write_screened(
        arguments.output,
        label_file,
        labels,
        rejected=arguments.rejected,
        unreviewed=arguments.unreviewed,
    )
    print(f"{arguments.output}: {', '.join(f'{n} {name}' for name, n in counts.items())}")
