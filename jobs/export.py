"""Ray job: `ray job submit --working-dir . -- python jobs/export.py …`: `causalneg export` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
