"""`python -m modalift.cli`."""

from modalift.cli import main

if __name__ == "__main__":
    main()
