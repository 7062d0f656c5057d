"""What the agent's archive does when it is started, by its arguments.

==============  ==================================================================================
arguments       what it does
==============  ==================================================================================
-               answers requests on standard input and output until they end (see `agent`)
attach TOKEN    joins them to the campaign's keeper, which is started if it does not run
keep TOKEN      is that keeper (see `keeper`)
clean           removes what joulemap left in the cache folder; prints what, as JSON
==============  ==================================================================================

Each imports no more than it needs: a board takes its time.
"""

from __future__ import annotations

import json
import sys

WRONG_USAGE = 2


def main(runtimes: dict[str, str], meters: dict[str, str]) -> None:
    """Do what the arguments say.

    Args:
        runtimes: Runtime name to the module (in the runtimes folder) that drives it.
        meters: Meter name to the module (in the meters folder) that finds such meters.
    """
    agent, *arguments = sys.argv
    if not arguments:
        from .agent import main as serve

        serve(runtimes, meters)
    elif arguments[0] == "attach" and len(arguments) == 2:
        from .keeper.attach import attach

        sys.exit(attach(agent, arguments[1]))
    elif arguments[0] == "keep" and len(arguments) == 2:
        from .keeper.service import keep

        sys.exit(keep(agent, arguments[1]))
    elif arguments == ["clean"]:
        from .keeper.campaign_folder import FolderError, clean

        try:
            print(json.dumps(clean(agent)))
        except FolderError as error:
            sys.exit(str(error))
    else:
        print("usage: agent.pyz [attach TOKEN | keep TOKEN | clean]", file=sys.stderr)
        sys.exit(WRONG_USAGE)
