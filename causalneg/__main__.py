"""The command `causalneg`, also where only the client is installed."""

import sys

from causalneg.errors import UserError
from causalneg.installed import needs_pipeline


def main() -> int:
    """Run a command and return its exit code; see `causalneg.cli`."""
    try:
        with needs_pipeline():
            from causalneg import cli
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
