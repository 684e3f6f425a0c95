"""
The command ``steatosis-d2``, and what the scripts in ``tools/`` and ``datasets/`` run.

Each module is one command. It has ``build_parser(prog)``, which gives an ``ArgumentParser``, and
``run(arguments)``; nothing is imported before it is needed, so that help comes at once.
"""

import argparse
import importlib
import sys

from steatosis_d2 import __version__
from steatosis_d2.errors import exit_cleanly

COMMANDS = {
    "segment": "find every droplet or nucleus in tiles and whole slides",
    "label": "outline droplets without a trained network, as labels to screen",
    "sample": "choose regions of slides that are worth an expert's time",
    "screen": "let an expert accept, reject and mend labels",
    "finetune": "make a network better with screened labels, and say by how much",
    "train": "train or evaluate a network, with Detectron2's interface",
    "evaluate": "measure predictions against truths",
    "compare": "say how a measure agrees with a reference over cases",
    "grades": "fit, judge and apply limits of fat area for steatosis grades",
    "prepare": "bring images and masks into the form that training reads",
    "export": "make a checkpoint small enough to give away",
    "doctor": "say what this installation has, and what it lacks",
}
DATASETS = {
    "guo2019": "tiles of Guo et al. 2019",
    "torino": "tiles of the Torino steatosis challenge",
    "bbbc038": "nuclei of the 2018 Data Science Bowl",
    "masks": "your own images and masks",
    "synthetic": "tiles of synthetic liver, drawn here",
    "slide": "a slide of synthetic liver, drawn here",
}

EXAMPLES = """
examples:
  steatosis-d2 segment slide.svs --output results
  steatosis-d2 segment --help
  steatosis-d2 doctor
"""


def main(words=None):
    """
    Run the command that the command line names; the entry point of the package.

    Args:
        words (list[str] or None): the command line without the program's name.
    """
    parser = _name_parser("steatosis-d2", "COMMAND", COMMANDS, description=MAIN, epilog=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"steatosis-d2 {__version__}")
    words = sys.argv[1:] if words is None else list(words)
    # What follows the command's name is its own; argparse would take its options for ours.
    command = parser.parse_args(words[:1]).name
    prog = f"steatosis-d2 {command}"
    if command != "prepare":
        run_command(command, words[1:], prog=prog)
        return
    datasets = _name_parser(prog, "DATA", DATASETS, description=f"{COMMANDS['prepare']}.")
    dataset = datasets.parse_args(words[1:2]).name
    run_command(f"prepare_{dataset}", words[2:], prog=f"{prog} {dataset}")


MAIN = "Fat droplets in liver slides, and nuclei, as separate instances."


def run_command(module_name, words=None, *, prog):
    """
    Run one command. What the user can mend becomes one line and exit code 1.

    Args:
        module_name (str): of the module in this package.
        words (list[str] or None): its options; None is the command line's.
        prog (str): what help and usage call the command.
    """
    with exit_cleanly():
        module = importlib.import_module(f"{__name__}.{module_name}")
        module.run(module.build_parser(prog).parse_args(words))


def _name_parser(prog, metavar, choices, *, description, epilog=None):
    """A parser of one name, whose help lists what may be named."""
    width = max(map(len, choices)) + 2
    listing = "\n".join(f"  {name:{width}}{text}" for name, text in choices.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} {metavar} [OPTIONS]",
        description=f"{description}\n\n{metavar} is one of\n{listing}\n\n"
        f"'{prog} {metavar} --help' explains each.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=choices, metavar=metavar, help=argparse.SUPPRESS)
    return parser
