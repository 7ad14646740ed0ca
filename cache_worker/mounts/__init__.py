"""How training sees a Dataset as files. One protocol, one module per way of serving it.

kernel.py, tree.py and readahead.py are pure (bytes of the FUSE protocol, the index as inodes, what
to ask for early), stored.py reads the shared store, line.py asks the worker, fuse.py answers the
kernel, server.py is the process, and attach.py makes and removes mounts. This file imports nothing,
for the supervisor stays small.
"""
