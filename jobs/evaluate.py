"""Ray job: `ray job submit --working-dir . -- python jobs/evaluate.py …`: `causalneg evaluate` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
