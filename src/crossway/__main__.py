"""Run the command line: `python -m crossway`."""

from crossway.cli import main

if __name__ == "__main__":
    main()
