"""Ray job: `ray job submit --working-dir . -- python jobs/index.py …`: `causalneg index` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["index", *sys.argv[1:]]))
