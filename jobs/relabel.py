"""Ray job: `ray job submit --working-dir . -- python jobs/relabel.py …`: `causalneg relabel` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["relabel", *sys.argv[1:]]))
