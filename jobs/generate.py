"""Ray job: `ray job submit --working-dir . -- python jobs/generate.py …`: `causalneg generate` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
