#!/usr/bin/env python
"""Make a checkpoint small enough to give away: the same as `steatosis-d2 export`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("export", prog="python tools/export_weights.py")
