"""`python -m edgecal` is the `edgecal` command."""

from edgecal.cli import main

if __name__ == "__main__":
    main()
