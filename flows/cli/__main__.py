"""`python -m flows.cli` is `deita`, for a debugger."""

from flows.cli import main

if __name__ == "__main__":
    main()
