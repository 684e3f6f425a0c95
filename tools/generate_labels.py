#!/usr/bin/env python
"""Outline fat droplets without a trained model: the same as `steatosis-d2 label`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("label", prog="python tools/generate_labels.py")
