#!/usr/bin/env python
"""Let an expert accept, reject and mend labels: the same as `steatosis-d2 screen`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("screen", prog="python tools/screen_labels.py")
