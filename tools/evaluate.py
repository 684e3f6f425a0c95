#!/usr/bin/env python
"""Measure predictions against truths: the same as `steatosis-d2 evaluate`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("evaluate", prog="python tools/evaluate.py")
