#!/usr/bin/env python
"""Make a checkpoint small enough to give away: the network's weights alone, in half precision."""

import argparse
import hashlib
from pathlib import Path

import torch

from steatosis_d2.errors import InputError, exit_cleanly
from steatosis_d2.files import replace_when_done

EXAMPLES = """
example:
  python tools/export_weights.py output/liver_starter/model_final.pth --output liver_starter.pth
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="written by tools/train_net.py")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="file to write")
    arguments = parser.parse_args()
    weights = read_weights(arguments.checkpoint)
    with replace_when_done(arguments.output) as temporary:
        torch.save({"model": {name: halve(value) for name, value in weights.items()}}, temporary)
    content = arguments.output.read_bytes()
    print(f"{arguments.output}: {len(content) / 1e6:.1f} MB")
    print(f"SHA-256 {hashlib.sha256(content).hexdigest()}")


def read_weights(path):
    """The network's tensors; where averaged weights were trained, they are the averaged ones."""
    if not path.is_file():
        raise InputError(f"checkpoint '{path}' does not exist; check the path.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)["model"]
    except Exception as error:
        raise InputError(
            f"'{path}' is no checkpoint of tools/train_net.py ({str(error).splitlines()[0]})."
        ) from None


def halve(tensor):
    return tensor.half() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    with exit_cleanly():
        main()
