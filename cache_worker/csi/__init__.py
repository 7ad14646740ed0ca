"""The node plugin: `python -m cache_worker node …`, one privileged process on each node.

wishes.py is what a volume asks for, refusals.py what the kubelet is told when it cannot be had;
directories.py makes the Datasets' cache directories, places.py holds the mounts of each (with
cache_worker/holder/, in a thread), publishing.py makes and removes what pods see, views.py the
view for `access: client`, volume_stats.py tells how a volume is; service.py speaks gRPC with the
kubelet, node.py is the process. csi_pb2 and registration_pb2 are made by `./dev generate`.
"""
