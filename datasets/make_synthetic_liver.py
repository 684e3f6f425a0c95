#!/usr/bin/env python
"""Draw synthetic liver with known droplets: the same as `steatosis-d2 prepare synthetic`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("prepare_synthetic", prog="python datasets/make_synthetic_liver.py")
