"""Started by its path: `python .../snex/_bindings/__main__.py REQUEST ANSWER`, two files of JSON."""

import sys

if __name__ == "__main__":
    # Modules come from the project, never from this folder: only the folder of the package is added.
    folder = __file__.rpartition("/")[0]
    sys.path[: sys.path[:1] == [folder]] = []
    package = folder.rpartition("/")[0].rpartition("/")[0]
    if package not in sys.path:
        sys.path.append(package)
    from snex._bindings.answer import main

    main(sys.argv[1], sys.argv[2])
