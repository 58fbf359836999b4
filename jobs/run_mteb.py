"""Ray job: `ray job submit --working-dir . -- python jobs/run_mteb.py …`: `causalneg mteb` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["mteb", *sys.argv[1:]]))
