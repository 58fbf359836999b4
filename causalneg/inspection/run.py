"""`causalneg inspect`: what is in a workspace. It writes nothing there."""

from causalneg import __version__
from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.inspection.findings import Findings
from causalneg.inspection.folders import find_folders, list_sizes
from causalneg.inspection.lengths import find_lengths
from causalneg.inspection.overlap import TRAIN, Judgements, find_overlap, mined_passages
from causalneg.inspection.show import show
from causalneg.inspection.stages import find_stages
from causalneg.workspace import Workspace


def run(config: Config, workspace: Workspace, report: Reporter) -> Findings:
    """Look at a workspace and print what is there, as tables or as JSON.

    Raises:
        UserError: there is no workspace, nothing is in it, or a file is damaged.
    """
    sizes = list_sizes(workspace)
    judgements, mined = Judgements(workspace), mined_passages(workspace)
    findings = Findings(
        workspace=workspace.root_url,
        version=__version__,
        bytes=sum(sizes.values()),
        stages=find_stages(workspace, set(sizes)),
        folders=find_folders(workspace, sizes, config.inspect.rows, config.seed),
        splits=judgements.splits(),
        lengths=find_lengths(workspace, judgements.positives(TRAIN), mined),
        overlap=find_overlap(workspace, judgements, mined),
    )
    if config.inspect.json_:
        # Past the console, which would read markup and emoji codes in texts.
        report.console.file.write(findings.model_dump_json(indent=1) + "\n")
    else:
        show(findings, report)
    return findings
