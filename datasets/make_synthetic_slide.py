#!/usr/bin/env python
"""Draw a synthetic biopsy with known droplets: the same as `steatosis-d2 prepare slide`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("prepare_slide", prog="python datasets/make_synthetic_slide.py")
