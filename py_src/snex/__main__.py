"""Where Python starts: `python .../snex/__main__.py IN OUT [PRINTS INTERRUPTS]`, or with `-m snex`."""

import sys

if __name__ == "__main__":
    if not __package__:
        # As `-m` does it, but without a look at the working directory.
        folder = __file__.rpartition("/")[0]
        sys.path[: sys.path[:1] == [folder]] = [folder.rpartition("/")[0]]
        sys.argv[0] = "-m"
    from snex import _path
    from snex._main import main

    _path.widen()
    sys.exit(main(sys.argv))
