#!/usr/bin/env python
"""Prepare the nucleus images of BBBC038: the same as `steatosis-d2 prepare bbbc038`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("prepare_bbbc038", prog="python datasets/prepare_bbbc038.py")
