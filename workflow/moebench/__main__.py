"""``python -m moebench VERB``."""

from moebench.cli import main

if __name__ == "__main__":
    main()
