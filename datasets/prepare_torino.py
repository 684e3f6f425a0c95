#!/usr/bin/env python
"""Prepare the tiles of the Torino challenge: the same as `steatosis-d2 prepare torino`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("prepare_torino", prog="python datasets/prepare_torino.py")
