"""``python -m holdfast``, the same as the ``holdfast`` command."""

import sys

if __name__ == "__main__":
    # -m puts the current folder on the path; whatever lies there shall not be taken for a module.
    if not sys.flags.safe_path:
        del sys.path[0]

    from holdfast.cli import main

    sys.exit(main())
