"""`python -m tests.fakes.mount_processes VERB CONFIG …`: the real launcher, supervisor, holder and
mount processes, the fake worker. Imports little, so that their memory can be measured.
"""

from __future__ import annotations

import importlib
import os
import sys

from cacheop.api import errors

COMMAND = [sys.executable, "-m", "tests.fakes.mount_processes"]


def main() -> int:
    verb, config = sys.argv[1], sys.argv[2]
    try:
        if verb == "run":
            from cache_worker.launcher import Launcher

            return Launcher(config, COMMAND).run()
        if verb == "supervise":
            from cache_worker.supervisor import Supervisor

            return Supervisor(config, COMMAND).run()
    except errors.CacheopError as error:
        sys.stderr.write(f"cacheop {verb}: {error}\n")
        return error.exit_code
    if verb in {"hold", "mount"}:
        module = {"hold": "cache_worker.holder.server", "mount": "cache_worker.mounts.server"}
        code: int = importlib.import_module(module[verb]).main(sys.argv[2:])
        return code
    if given := os.environ.get("FAKE_WORKER_EXIT"):
        return int(given)

    import json
    from pathlib import Path

    from tests.fakes.mount_worker import FakeWorker

    FakeWorker(Path(json.loads(Path(config).read_text())["root"]), Path(config)).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
