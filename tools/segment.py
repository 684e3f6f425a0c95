#!/usr/bin/env python
"""Segment tiles and whole slides: the same as `steatosis-d2 segment`."""

from steatosis_d2.cli import run_command

if __name__ == "__main__":
    run_command("segment", prog="python tools/segment.py")
