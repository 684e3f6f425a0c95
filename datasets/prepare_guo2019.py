#!/usr/bin/env python
"""Prepare the liver tiles of Guo et al. 2019: the same as `steatosis-d2 prepare guo2019`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("prepare_guo2019", prog="python datasets/prepare_guo2019.py")
