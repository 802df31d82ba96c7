"""Entry point of ``python -m gender_classifier``, the same as the command ``gender-classifier``."""

import sys

from gender_classifier.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
