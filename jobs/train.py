"""Ray job: `ray job submit --working-dir . -- python jobs/train.py …`: `causalneg train` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
