"""Ray job: `ray job submit --working-dir . -- python jobs/serve.py …`: `causalneg serve` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
