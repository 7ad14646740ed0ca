"""Fluid documents in, our documents and notes out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cacheop.api import dataload, dataset
from cacheop.api.model import show
from cacheop.api.names import API_VERSION
from cacheop.fluid import loads, runtime, storage
from cacheop.fluid.notes import Notes
from cacheop.fluid.shapes import as_list, as_map, as_maps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cacheop.fluid.notes import Note

GROUP = "data.fluid.io"
DEFAULT_NAMESPACE = "default"
RUNTIMES = frozenset(
    {"AlluxioRuntime", "JuiceFSRuntime", "JindoRuntime", "ThinRuntime", "GooseFSRuntime"}
)
_FOREIGN_METADATA = ("kubectl.kubernetes.io/", "data.fluid.io/", "fluid.io/", "pvc.fluid.io/")
_OTHERS: Mapping[str, str] = {
    "DataMigrate": "copying between storages is not a cache's work: use rclone or a Job",
    "DataProcess": "use a Job with the Dataset's claim",
    "DataBackup": "a listing is made anew in seconds; nothing needs a backup",
    "ThinRuntimeProfile": "the storage is read by fsspec, without a FUSE client of its own",
}


@dataclass(frozen=True, slots=True)
class Converted:
    """One document of ours."""

    document: dict[str, Any]
    sources: tuple[str, ...]
    """What it was made of: `Dataset demo`, `AlluxioRuntime demo`."""
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Conversion:
    """Everything that became of the input."""

    documents: tuple[Converted, ...]
    notes: tuple[Note, ...]
    """About what became no document of its own."""

    @property
    def all_notes(self) -> tuple[Note, ...]:
        """In the order of the documents, then the rest."""
        return tuple(note for made in self.documents for note in made.notes) + self.notes


@dataclass(frozen=True, slots=True)
class _Head:
    kind: str
    namespace: str
    """"" when the document names none."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"

    @property
    def place(self) -> tuple[str, str]:
        return self.namespace or DEFAULT_NAMESPACE, self.name


def convert(documents: Iterable[Any]) -> Conversion:
    """Datasets with their runtimes, and DataLoads; everything else is only told about."""
    found = [(_head(document), document) for document in _flat(documents)]
    runtimes = {h.place: (h, d) for h, d in found if h.kind.endswith("Runtime") and _is_fluid(d)}
    datasets = [(h, d) for h, d in found if h.kind == "Dataset" and _is_fluid(d)]
    shared = _sharing(datasets)
    made: list[Converted] = []
    rest: list[Note] = []
    for head, document in found:
        notes = Notes(str(head))
        if not _is_fluid(document):
            _tell_of_others(head, document, notes)
        elif head.kind == "Dataset":
            around = runtimes.get(head.place)
            if _is_reference(document):
                _tell_of_reference(document, {h.place for h, _ in datasets}, notes)
            else:
                made.append(_dataset(head, document, around, shared.get(head.place, ()), notes))
                continue
        elif head.kind == "DataLoad":
            made.append(_load(head, document, runtimes, notes))
            continue
        elif head.kind.endswith("Runtime"):
            if head.place not in {h.place for h, _ in datasets}:
                notes.todo("", "no Dataset of this name is in the input; nothing was made of it")
        else:
            notes.dropped("", _OTHERS.get(head.kind, "no equal"))
        rest += notes.said
    return Conversion(tuple(made), tuple(rest))


def _flat(documents: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """`kubectl get … -o yaml` gives a List."""
    for document in documents:
        if not isinstance(document, Mapping):
            continue
        if str(document.get("kind")).endswith("List") and isinstance(document.get("items"), list):
            yield from _flat(document["items"])
        else:
            yield document


def _is_fluid(document: Mapping[str, Any]) -> bool:
    return str(document.get("apiVersion")).startswith(f"{GROUP}/")


def _head(document: Mapping[str, Any]) -> _Head:
    metadata = as_map(document.get("metadata"))
    namespace, name = metadata.get("namespace") or "", metadata.get("name") or ""
    return _Head(str(document.get("kind")), str(namespace), str(name))


def _dataset(
    head: _Head,
    document: Mapping[str, Any],
    bound: tuple[_Head, Mapping[str, Any]] | None,
    shared: Sequence[str],
    notes: Notes,
) -> Converted:
    spec = as_map(document.get("spec"))
    of_runtime = as_map(bound[1].get("spec")) if bound else {}
    kind = bound[0].kind if bound else ""
    runtime_notes = Notes(str(bound[0])) if bound else Notes("")
    fields: dict[str, Any] = {}
    if bound is None:
        notes.changed("", "no runtime is in the input: replicas, tiers and quotas are the defaults")
    else:
        if kind not in RUNTIMES:
            runtime_notes.changed("", f"{kind} is not known here; look at what was made of it")
        fields = runtime.convert_runtime(kind, of_runtime, runtime_notes)
    around = storage.Surroundings(
        kind,
        runtime.storage_options(of_runtime) | dict(as_map(spec.get("sharedOptions"))),
        tuple(as_list(spec.get("sharedEncryptOptions"))),
        runtime.secret_files(of_runtime),
    )
    ours: dict[str, Any] = {"mounts": _mounts(spec, around, notes)}
    selector = fields.pop("nodeSelector", {})
    ours |= fields
    if affinity := _affinity(as_map(spec.get("nodeAffinity")), selector):
        ours["nodeAffinity"] = affinity
    if isinstance(spec.get("tolerations"), list) and spec["tolerations"]:
        ours["tolerations"] = spec["tolerations"]
    if shared:
        ours["shareWith"] = {"namespaces": list(shared)}
    _tell_of_dataset(spec, notes)
    made = _document("Dataset", head, head.namespace, document, ours, notes)
    checked = _checked(made, dataset.read_dataset, dataset.to_document, notes)
    sources = (str(head), *((str(bound[0]),) if bound else ()))
    return Converted(checked, sources, (*notes.said, *runtime_notes.said))


def _mounts(
    spec: Mapping[str, Any], around: storage.Surroundings, notes: Notes
) -> list[dict[str, Any]]:
    given = as_maps(spec.get("mounts"))
    ours = [
        storage.convert_mount(mount, around, f"spec.mounts[{number}]", notes)
        for number, mount in enumerate(given)
    ]
    if len(ours) > 1:
        for number, (mount, one) in enumerate(zip(given, ours, strict=True)):
            if one["path"] == "/":  # Alluxio nests mounts, ours lie beside each other
                one["path"] = f"/{mount.get('name') or f'mount-{number}'}"
                notes.changed(
                    f"spec.mounts[{number}].path",
                    f"no mount lies within another: its files are below {one['path']} now",
                )
    for mount in ours:
        if mount["path"] == "/":
            del mount["path"]
    return ours


def _affinity(given: Mapping[str, Any], selector: Mapping[str, Any]) -> dict[str, Any]:
    """The Dataset's own terms, each with the runtime's nodeSelector added."""
    required = as_map(given.get("required"))
    terms = [dict(term) for term in as_maps(required.get("nodeSelectorTerms"))]
    wanted = [
        {"key": str(key), "operator": "In", "values": [str(value)]}
        for key, value in selector.items()
    ]
    if wanted:
        terms = [
            term | {"matchExpressions": [*as_list(term.get("matchExpressions")), *wanted]}
            for term in terms or [{}]
        ]
    return {"required": {"nodeSelectorTerms": terms}} if terms else {}


def _tell_of_dataset(spec: Mapping[str, Any], notes: Notes) -> None:
    modes = [mode for mode in as_list(spec.get("accessModes")) if mode != "ReadOnlyMany"]
    if modes:
        notes.changed(
            "spec.accessModes",
            f"the claim is ReadOnlyMany, not {', '.join(map(str, modes))}: write to the storage "
            "itself",
        )
    if spec.get("placement") == "Exclusive":
        notes.changed("spec.placement", "Datasets share nodes, each with a quota of its own")
    if spec.get("owner"):
        notes.dropped("spec.owner", "every uid may read the files")
    if spec.get("dataRestoreLocation"):
        notes.dropped("spec.dataRestoreLocation", "a listing is made anew in seconds")


def _load(
    head: _Head,
    document: Mapping[str, Any],
    runtimes: Mapping[tuple[str, str], tuple[_Head, Mapping[str, Any]]],
    notes: Notes,
) -> Converted:
    spec = as_map(document.get("spec"))
    of = as_map(spec.get("dataset"))
    namespace = head.namespace
    wanted = str(of.get("namespace") or "")
    if wanted and wanted != (namespace or DEFAULT_NAMESPACE):
        namespace = wanted
        notes.changed("spec.dataset.namespace", f"a DataLoad is where its Dataset is: {wanted}")
    bound = runtimes.get((namespace or DEFAULT_NAMESPACE, str(of.get("name"))))
    copies = as_map(as_map(bound[1].get("spec")).get("data")).get("replicas") if bound else None
    ours = loads.convert_load(spec, copies if isinstance(copies, int) else 1, notes)
    made = _document("DataLoad", head, namespace, document, ours, notes)
    checked = _checked(made, dataload.read_dataload, dataload.to_document, notes)
    return Converted(checked, (str(head),), tuple(notes.said))


def _document(
    kind: str,
    head: _Head,
    namespace: str,
    source: Mapping[str, Any],
    spec: dict[str, Any],
    notes: Notes,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": head.name}
    if namespace:
        metadata["namespace"] = namespace
    for name in ("labels", "annotations"):
        given = as_map(as_map(source.get("metadata")).get(name))
        kept = {k: v for k, v in given.items() if not str(k).startswith(_FOREIGN_METADATA)}
        gone = [k for k in given if k not in kept and not k.startswith("kubectl.kubernetes.io/")]
        if kept:
            metadata[name] = kept
        if gone:
            notes.dropped(f"metadata.{name}", f"Fluid's own: {', '.join(gone)}")
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _checked(
    document: dict[str, Any],
    read: Callable[[Any], tuple[Any, Sequence[Any]]],
    write: Callable[[Any], dict[str, Any]],
    notes: Notes,
) -> dict[str, Any]:
    """The document as our parser writes it, or as it is and what the parser says of it."""
    model, problems = read(document)
    for problem in problems:
        notes.todo(f"the new {show(problem.path)}", problem.text)
    return document if model is None else document | {"spec": write(model)["spec"]}


def _is_reference(document: Mapping[str, Any]) -> bool:
    mounts = as_maps(as_map(document.get("spec")).get("mounts"))
    return bool(mounts) and all(map(storage.reference, mounts))


def _sharing(
    datasets: Sequence[tuple[_Head, Mapping[str, Any]]],
) -> dict[tuple[str, str], list[str]]:
    """Dataset -> the other namespaces whose Datasets refer to it."""
    found: dict[tuple[str, str], list[str]] = {}
    for head, document in datasets:
        for mount in as_maps(as_map(document.get("spec")).get("mounts")):
            of = storage.reference(mount)
            user = head.place[0]
            if of and user != of[0] and user not in found.setdefault((of[0], of[1]), []):
                found[of[0], of[1]].append(user)
    return found


def _tell_of_reference(
    document: Mapping[str, Any], there: set[tuple[str, str]], notes: Notes
) -> None:
    head = _head(document)
    for mount in as_maps(as_map(document.get("spec")).get("mounts")):
        namespace, name, below = storage.reference(mount) or ("", "", "")
        user = head.place[0]
        who = f"Dataset {namespace}/{name}"
        if user == namespace:
            text = f"is {who} itself: use its claim {name}"
        elif (namespace, name) in there:
            text = (
                f"is {who}, which is shared now: its claim in {user} is called {name}. Say in "
                f"{user} that you take it: kubectl annotate namespace {user} "
                f"cacheop.io/accept-from={namespace}"
            )
        else:
            text = f"is {who}, not in the input: add {user} to its spec.shareWith.namespaces"
        notes.todo("", text + (f"; for {below} alone use subPath" if below else ""))


def _tell_of_others(head: _Head, document: Mapping[str, Any], notes: Notes) -> None:
    if head.kind == "Secret":
        notes.dropped("", "is used as it is; keep it")
    elif "fluid.io/" in repr(document):
        notes.dropped("", "keep it; the labels and annotations of fluid.io have no effect any more")
    else:
        notes.dropped("", "nothing of Fluid's; keep it")
