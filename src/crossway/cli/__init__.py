"""The command line: faces over the client. Started often, so nothing heavy is imported before it is needed."""


def main() -> None:
    """Run the command line and exit."""
    from crossway.cli.app import run

    run()
