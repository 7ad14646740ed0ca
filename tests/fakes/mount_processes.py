"""`python -m tests.fakes.mount_processes VERB CONFIG …`: the real supervisor and mount process, the
fake worker. Imports little, so that their memory can be measured.
"""

from __future__ import annotations

import os
import sys

from cacheop.api import errors


def main() -> int:
    verb, config = sys.argv[1], sys.argv[2]
    if verb == "supervise":
        from cache_worker.supervisor import Supervisor, report

        try:
            command = [sys.executable, "-m", "tests.fakes.mount_processes"]
            return Supervisor(config, command).run()
        except errors.CacheopError as error:
            report(str(error))
            return error.exit_code
    if verb == "mount":
        from cache_worker.mounts import server

        return server.main(sys.argv[2:])
    if code := os.environ.get("FAKE_WORKER_EXIT"):
        return int(code)

    import json
    from pathlib import Path

    from tests.fakes.mount_worker import FakeWorker

    FakeWorker(Path(json.loads(Path(config).read_text())["root"])).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
