"""A real disk of which one labelled operation fails."""

import errno
import os

from cache_worker.disk import Disk


class FailingDisk(Disk):
    """Fails every call whose label is in `fail` with that errno."""

    def __init__(self):
        self.fail = {}

    def _maybe(self, label):
        if label in self.fail:
            code = self.fail[label]
            raise OSError(code, os.strerror(code))

    def open(self, label, path, flags):
        self._maybe(label)
        return super().open(label, path, flags)

    def write_at(self, label, fd, data, offset):
        if self.fail.get(label) == errno.ENOSPC:
            super().write_at(label, fd, data[: len(data) // 2], offset)  # as a full disk does
        self._maybe(label)
        super().write_at(label, fd, data, offset)

    def read_at(self, label, fd, length, offset):
        self._maybe(label)
        return super().read_at(label, fd, length, offset)

    def link(self, label, source, path):
        self._maybe(label)
        super().link(label, source, path)

    def unlink(self, label, path):
        self._maybe(label)
        super().unlink(label, path)

    def sync(self, label, fd):
        self._maybe(label)
        super().sync(label, fd)

    def punch(self, label, fd, offset, length):
        self._maybe(label)
        super().punch(label, fd, offset, length)
