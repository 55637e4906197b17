"""The command `wgan-fast`, also `python -m wgan_fast`."""

import importlib.util
import sys

from wgan_fast import doctor

_WITHOUT_TYPER = """Usage: wgan-fast COMMAND

Commands:
  doctor  Say what is installed and built, and how to mend what does not match.

The other commands need more packages: pip install 'wgan_fast[train]'"""


def main() -> int:
    if sys.argv[1:] == ["doctor"]:  # it must work where nothing else does
        return doctor.main()
    if importlib.util.find_spec("typer") is None:
        print(_WITHOUT_TYPER)
        return 0 if sys.argv[1:] in ([], ["--help"]) else 1

    import typer

    from wgan_fast.train.cli import app

    @app.command("doctor")
    def _() -> None:
        """Say what is installed and built, and how to mend what does not match."""
        raise typer.Exit(doctor.main())

    app()
    return 0


if __name__ == "__main__":
    sys.exit(main())
