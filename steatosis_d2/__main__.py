"""``python -m steatosis_d2``: the command, wherever the package can be imported."""

from steatosis_d2.cli import main

if __name__ == "__main__":
    main()
