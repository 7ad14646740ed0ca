"""How training sees a Dataset as files: the mount process and what it is made of.

kernel.py, tree.py, listing.py and readahead.py are pure (bytes of the FUSE protocol, the index as
inodes and directories, what to ask for early). ring.py keeps what must outlive the process,
channel.py takes requests and sends answers, stored.py reads the shared store, line.py asks the
worker and backing.py the holder, opens.py and passthrough.py answer OPEN in each mode, fuse.py
answers the rest, and server.py is the process. This file imports nothing.
"""
