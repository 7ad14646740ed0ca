"""gRPC with the kubelet: CSI's Identity and Node service, and the registration of the plugin."""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import grpc

from cache_worker.csi import csi_pb2 as csi
from cache_worker.csi import publishing, volume_stats, wishes
from cache_worker.csi import registration_pb2 as registration
from cache_worker.csi.publishing import Patience
from cache_worker.csi.refusals import INTERNAL, NOT_FOUND, code_of, invalid
from cache_worker.holder import mounting
from cacheop.api.errors import CacheopError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from cache_worker.csi.directories import Directories
    from cache_worker.csi.places import Places
    from cache_worker.csi.publishing import Volumes
    from cache_worker.csi.volume_stats import Usage

DRIVER = "cacheop.io"
CSI_VERSIONS = ("1.0.0",)
THREADS = 64
FIRST_WAIT_SECONDS, WAIT_SECONDS = 5.0, 60.0
"""A volume's first call answers soon, so that the pod gets an event that says what is waited for;
later ones wait long, as the kubelet's pauses between calls double each time."""
KUBELET_SECONDS = 5.0  # left of the kubelet's deadline when we answer
WAITED_MAX = 4096
STOP_SECONDS = 2.0

Context = grpc.ServicerContext


class Identity:
    """csi.v1.Identity."""

    def __init__(self, version: str, is_ready: Callable[[], bool]) -> None:
        self._version, self._is_ready = version, is_ready

    def GetPluginInfo(self, _: object, __: Context) -> csi.GetPluginInfoResponse:  # noqa: N802
        """Who we are."""
        return csi.GetPluginInfoResponse(name=DRIVER, vendor_version=self._version)

    def GetPluginCapabilities(  # noqa: N802
        self, _: object, __: Context
    ) -> csi.GetPluginCapabilitiesResponse:
        """There is no controller."""
        return csi.GetPluginCapabilitiesResponse()

    def Probe(self, _: object, __: Context) -> csi.ProbeResponse:  # noqa: N802
        """Whether it can work."""
        answer = csi.ProbeResponse()
        answer.ready.value = self._is_ready()
        return answer


class Node:
    """csi.v1.Node."""

    def __init__(
        self,
        node: str,
        kubelet_dir: str,
        volumes: Volumes,
        directories: Directories,
        places: Places,
    ) -> None:
        self._node, self._kubelet_dir = node, kubelet_dir
        self._volumes = volumes
        self._directories, self._places = directories, places
        self._waited: dict[str, None] = {}
        """Targets whose first call was answered."""

    def NodeGetInfo(self, _: object, __: Context) -> csi.NodeGetInfoResponse:  # noqa: N802
        """Where we are."""
        return csi.NodeGetInfoResponse(node_id=self._node)

    def NodeGetCapabilities(  # noqa: N802
        self, _: object, __: Context
    ) -> csi.NodeGetCapabilitiesResponse:
        """What of the optional we do."""
        rpc = csi.NodeServiceCapability.RPC
        kinds = (rpc.GET_VOLUME_STATS, rpc.VOLUME_CONDITION)
        found = [csi.NodeServiceCapability(rpc=rpc(type=kind)) for kind in kinds]
        return csi.NodeGetCapabilitiesResponse(capabilities=found)

    def NodePublishVolume(  # noqa: N802
        self, request: csi.NodePublishVolumeRequest, context: Context
    ) -> csi.NodePublishVolumeResponse:
        """Show a volume at a pod's path."""
        if not request.volume_id:
            raise invalid("the call has no volume_id")
        if not request.target_path:
            raise invalid("the call has no target_path")
        if not request.HasField("volume_capability"):
            raise invalid("the call has no volume_capability")
        if request.volume_capability.WhichOneof("access_type") == "block":
            raise invalid("a Dataset is files, not a block device")
        target = publishing.resolve(request.target_path, self._kubelet_dir)
        wish = wishes.read(request.volume_context)
        wait_seconds = WAIT_SECONDS if target in self._waited else FIRST_WAIT_SECONDS
        left = context.time_remaining()
        if left is not None:
            wait_seconds = min(wait_seconds, max(0.0, left - KUBELET_SECONDS))
        self._waited[target] = None
        if len(self._waited) > WAITED_MAX:
            self._waited.clear()
        self._volumes.publish(wish, target, Patience(wait_seconds, context.is_active))
        self._waited.pop(target, None)
        return csi.NodePublishVolumeResponse()

    def NodeUnpublishVolume(  # noqa: N802
        self, request: csi.NodeUnpublishVolumeRequest, _: Context
    ) -> csi.NodeUnpublishVolumeResponse:
        """Take a volume away."""
        if not request.volume_id:
            raise invalid("the call has no volume_id")
        if not request.target_path:
            raise invalid("the call has no target_path")
        target = publishing.resolve(request.target_path, self._kubelet_dir)
        self._volumes.unpublish(target)
        self._waited.pop(target, None)
        return csi.NodeUnpublishVolumeResponse()

    def NodeGetVolumeStats(  # noqa: N802
        self, request: csi.NodeGetVolumeStatsRequest, _: Context
    ) -> csi.NodeGetVolumeStatsResponse:
        """Usage and condition of a volume."""
        if not request.volume_id:
            raise invalid("the call has no volume_id")
        if not request.volume_path:
            raise invalid("the call has no volume_path")
        path = mounting.resolve(request.volume_path)  # anywhere: what is not ours is not found
        found = volume_stats.look(path, self._directories, self._places)
        unit = csi.VolumeUsage
        usage = [*_usage(found.bytes, unit.BYTES), *_usage(found.inodes, unit.INODES)]
        condition = csi.VolumeCondition(
            abnormal=bool(found.trouble), message=found.trouble or "reads are answered"
        )
        return csi.NodeGetVolumeStatsResponse(usage=usage, volume_condition=condition)


class Registration:
    """pluginregistration.Registration: the kubelet asks who we are, and says whether it took us."""

    def __init__(self, endpoint: str, log: Callable[[str], None]) -> None:
        self._endpoint, self._log = endpoint, log
        self.refused = threading.Event()

    def GetInfo(self, _: object, __: Context) -> registration.PluginInfo:  # noqa: N802
        """Who we are and where."""
        return registration.PluginInfo(
            type="CSIPlugin", name=DRIVER, endpoint=self._endpoint, supported_versions=CSI_VERSIONS
        )

    def NotifyRegistrationStatus(  # noqa: N802
        self, request: registration.RegistrationStatus, _: Context
    ) -> registration.RegistrationStatusResponse:
        """When it refuses we end, and begin again."""
        if request.plugin_registered:
            self._log("the kubelet has registered the plugin")
        else:
            self._log(f"the kubelet does not register the plugin: {request.error}")
            self.refused.set()
        return registration.RegistrationStatusResponse()


def serve(
    path: str, services: Iterable[grpc.GenericRpcHandler], threads: int = THREADS
) -> grpc.Server:
    """A server on the unix socket `path`; what a dead one left there is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server = grpc.server(ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers(list(services))
    server.add_insecure_port(f"unix://{path}")
    server.start()
    return server


def handlers(
    service: str, messages: Any, implementation: object, log: Callable[[str], None]
) -> grpc.GenericRpcHandler:
    """The calls of `service`, a service of the generated module `messages`."""
    methods = messages.DESCRIPTOR.services_by_name[service].methods
    return grpc.method_handlers_generic_handler(
        f"{messages.DESCRIPTOR.package}.{service}",
        {
            method.name: grpc.unary_unary_rpc_method_handler(
                _answering(getattr(implementation, method.name), log),
                request_deserializer=getattr(messages, method.input_type.name).FromString,
                response_serializer=getattr(messages, method.output_type.name).SerializeToString,
            )
            for method in methods
        },
    )


def _answering(
    call: Callable[[Any, Context], Any], log: Callable[[str], None]
) -> Callable[[Any, Context], Any]:
    """`call`, with errors as gRPC has them."""

    def answer(request: Any, context: Context) -> Any:  # noqa: RET503 - abort raises
        try:
            return call(request, context)
        except CacheopError as error:
            code, words = code_of(error), str(error)
        except OSError as error:
            code, words = INTERNAL, f"{call.__name__} failed: {error}"
        except Exception as error:  # noqa: BLE001 - the kubelet is to see it
            log(traceback.format_exc())
            code, words = INTERNAL, f"{call.__name__} failed: {error!r}"
        if code != NOT_FOUND:
            log(f"{call.__name__}: {code}: {words}")
        context.abort(grpc.StatusCode[code], words)

    return answer


def _usage(found: Usage | None, unit: csi.VolumeUsage.Unit) -> list[csi.VolumeUsage]:
    if found is None:
        return []
    return [
        csi.VolumeUsage(total=found.total, used=found.used, available=found.available, unit=unit)
    ]
