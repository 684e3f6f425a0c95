#!/usr/bin/env python
"""Prepare your own images and masks: the same as `steatosis-d2 prepare masks`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("prepare_masks", prog="python datasets/prepare_masks.py")
