"""The command `wgan-fast`, also `python -m wgan_fast`."""

import errno
import os
import sys

DOCTOR = "Say what is installed and built, and how to mend what does not match."
BENCH = "Time the library against the textbook on this machine, in some minutes."
_HELP = f"""Usage: wgan-fast COMMAND

Commands:
  doctor  {DOCTOR}
  bench   {BENCH}

Options:
  --version

The other commands need more packages ({{missing}}): pip install '.[train]',
in the folder of wgan_fast's sources"""


def main() -> int:
    try:
        try:
            return _run()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"error: {error.filename or 'the output'} cannot be written: {error.strerror}", file=sys.stderr)
        # What is left in the buffer would fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run() -> int:
    command, arguments = sys.argv[1:2], sys.argv[2:]
    # These two need torch and numpy alone, and doctor must work where nothing else does.
    if command == ["doctor"]:
        from wgan_fast import doctor

        return doctor.main(arguments)
    if command == ["--version"]:
        import wgan_fast

        print(f"wgan_fast {wgan_fast.__version__}")
        return 0
    if command == ["bench"]:
        from wgan_fast import bench

        return bench.main(arguments)
    try:
        from wgan_fast.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wgan_fast"):
            raise
        asked_for_help = not command or "--help" in sys.argv
        print(_HELP.format(missing=error.name), file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 1
    # For the list of commands.
    app.command("doctor", help=DOCTOR)(lambda: None)
    app.command("bench", help=BENCH)(lambda: None)
    app(prog_name="wgan-fast")  # `python -m wgan_fast` is no name for a shell's completion
    return 0


if __name__ == "__main__":
    sys.exit(main())
