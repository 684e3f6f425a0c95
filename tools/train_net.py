#!/usr/bin/env python
"""Train or evaluate a network, with Detectron2's interface: the same as `steatosis-d2 train`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("train", prog="python tools/train_net.py")
