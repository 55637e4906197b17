"""The command `wgan-fast`, also `python -m wgan_fast`."""

import sys

from wgan_fast import doctor

_HELP = """Usage: wgan-fast COMMAND

Commands:
  doctor  Say what is installed and built, and how to mend what does not match.

The other commands need more packages ({missing}): pip install 'wgan_fast[train]'"""


def main() -> int:
    if sys.argv[1:] == ["doctor"]:  # it must work where nothing else does
        return doctor.main()
    try:
        import typer

        from wgan_fast.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wgan_fast"):
            raise
        asked_for_help = sys.argv[1:] == [] or "--help" in sys.argv
        print(_HELP.format(missing=error.name), file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 1

    @app.command("doctor")
    def _() -> None:
        """Say what is installed and built, and how to mend what does not match."""
        raise typer.Exit(doctor.main())

    app()
    return 0


if __name__ == "__main__":
    sys.exit(main())
