"""Run with `python -m dingbridge`."""

from dingbridge.cli import main

if __name__ == "__main__":
    main()
