"""`python -m cromford` is the command `cromford`."""

from cromford.cli.main import main

if __name__ == "__main__":
    main()
