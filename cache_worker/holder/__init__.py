"""The holder: the one privileged process. It makes and removes mounts and keeps their fds.

messages.py are the packets on holder.sock, syscalls.py the calls that Python lacks, mountinfo.py
what is mounted, mounting.py and native.py make mounts, backing.py registers files with the kernel,
records.py remembers mounts on disk, publishing.py makes one while its thread waits for the worker,
keeper.py knows them all, lanes.py serves mount processes, connection.py and server.py are the loop.
Which mode a mount takes: cacheop/api/mount_modes.py. Everything here stays small: <= 12 MiB PSS.
"""
