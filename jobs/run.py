"""Ray job: `ray job submit --working-dir . -- python jobs/run.py …`: `causalneg run` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
