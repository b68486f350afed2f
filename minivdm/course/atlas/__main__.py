"""The command that draws the atlas."""

import argparse
import sys
from pathlib import Path

from minivdm.errors import UserError
from minivdm.paths import repo_root


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minivdm.course.atlas", description="Draw the atlas of symptoms.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which pictures; all when none is given")
    parser.add_argument("--out", type=Path, default=repo_root() / "docs" / "symptoms", help="folder to write")
    options = parser.parse_args(arguments)
    from minivdm.course.atlas.page import write  # torch takes its seconds, which help need not wait for

    try:
        write(options.out, options.names)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
