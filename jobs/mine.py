"""Ray job: `ray job submit --working-dir . -- python jobs/mine.py …`: `causalneg mine` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["mine", *sys.argv[1:]]))
