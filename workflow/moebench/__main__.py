"""``python -m moebench VERB``."""

from moebench.commands.cli import main

if __name__ == "__main__":
    main()
