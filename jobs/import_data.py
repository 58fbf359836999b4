"""Ray job: `ray job submit --working-dir . -- python jobs/import_data.py …`: `causalneg import` as a job."""

import sys

from causalneg.cli import main

if __name__ == "__main__":
    sys.exit(main(["import", *sys.argv[1:]]))
