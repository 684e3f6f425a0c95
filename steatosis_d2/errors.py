"""What a command tells its user when the input is at fault."""

import contextlib
import os
import sys


class InputError(ValueError):
    """
    The user's input is at fault: a file, a setting, a command line.

    The message says what was read, what was found, what was expected and how to mend it,
    and names the file. Scripts print it without a traceback and exit with 1; any other
    exception is a defect of ours and keeps its traceback.
    """


@contextlib.contextmanager
def needs_extra(extra, what):
    """
    Name the line that installs the packages of an extra, where a block fails to import them.

    Args:
        extra (str): one of setup.py's.
        what (str): what needs them, as the beginning of a message.

    Raises:
        InputError: a package is missing.

    Examples:
        >>> with needs_extra("screening", "the page"):
        ...     import fastapi
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"{what} needs the package '{error.name}': pip install 'steatosis-d2[{extra}]'"
        ) from None


@contextlib.contextmanager
def exit_cleanly():
    """
    Turn the user's errors into one line on stderr and exit code 1.

    Besides :class:`InputError`, operating-system errors (no permission, disk full, file not
    found) are the user's to mend, and their messages name the file already. Ctrl-C exits
    with 130, as shells expect.

    Examples:
        >>> if __name__ == "__main__":
        ...     with exit_cleanly():
        ...         main()
    """
    try:
        yield
    except BrokenPipeError:  # who read the output has seen enough, like `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (InputError, OSError) as error:
        # An error in a data-loading process arrives with that process's traceback before it.
        message = str(error).rsplit("InputError: ", maxsplit=1)[-1].strip()
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
