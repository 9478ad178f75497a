"""``diffhw``: the command line. Parses, starts one command, turns errors into one sentence and an exit code.

0: done.  1: a check failed (validate --require).  2: the user's mistake, one sentence on standard
error.  70: an error of ours (--debug shows the traceback).  130: interrupted.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from diffhw._cli._errors import UserError
from diffhw._cli._parser import parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. argv: without the program's name, default `sys.argv`."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        try:
            args = parse(words)
            args.words = words
            command = importlib.import_module(f"diffhw._cli._{args.command}")
            code = command.run(args)
        except SystemExit as stop:  # --help and --version
            code = stop.code if isinstance(stop.code, int) else 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader went away (| head). Python would complain once more when it flushes at exit.
        _silence_stdout()
        return 141
    except KeyboardInterrupt:
        print("diffhw: interrupted; no file was changed", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError) as error:
        if debug and not isinstance(error, UserError):
            raise
        print(f"diffhw: error: {_sentence(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        if debug:
            raise
        text = f"{type(error).__name__}: {_sentence(error)}"
        print(f"diffhw: error: internal, please report it: {text} (--debug shows more)", file=sys.stderr)
        return 70


def _sentence(error: BaseException) -> str:
    """The message on one line."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _silence_stdout() -> None:
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # a stdout without a file behind it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
