"""Members that run as a task, as in a worker."""

import asyncio


class RunningMembers:
    def __init__(self, members):
        self.members = members
        self.views = []
        self.task = asyncio.create_task(members.run(self.views.append))

    def nodes(self):
        return [member.node for member in self.members.view.members]

    async def until(self, condition, seconds):
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not condition():
            assert loop.time() - started < seconds, self.members.view
            await asyncio.sleep(0.005)
        return loop.time() - started

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.task.cancelled()
