"""The verbs that act on a Dataset on this machine or in a cluster: kube/place.py says where."""

from __future__ import annotations

from typing import Annotated

import typer

from cacheop.cli.kube.place import Choice, of
from cacheop.cli.options import (
    Context,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Paths,
    Yes,
    epilog,
)
from cacheop.cli.output import Format

app = typer.Typer()


@app.command(
    epilog=epilog(
        "cacheop status",
        "cacheop status demo -o json",
        "cacheop status --all",
        "cacheop status imagenet -n vision --context prod",
    )
)
def status(
    name: Name = "",
    namespace: Namespace = "",
    everything: Annotated[bool, typer.Option("--all", "-a", help="every Dataset")] = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Output = Format.TEXT,
) -> int:
    """Show what runs, how full it is and how well it does."""
    if cluster := of(name, Choice(context, kubeconfig, namespace)):
        from cacheop.cli.kube import verbs as objects

        return objects.status(cluster, name, output, everything=everything)
    from cacheop.cli import verbs

    return verbs.status(name, namespace, output, everything=everything)


@app.command(
    epilog=epilog(
        "cacheop load",
        "cacheop load demo --path /train --path /val/labels.csv",
        "cacheop load demo --replicas all",
    )
)
def load(
    *,
    name: Name = "",
    path: Paths = None,
    version: Annotated[
        str, typer.Option(metavar="VERSION", help="[default: the current one]")
    ] = "",
    replicas: Annotated[
        str, typer.Option(metavar="N|all", help="on how many nodes each part is to be")
    ] = "1",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Output = Format.TEXT,
) -> int:
    """Fill the cache before it is read, on all nodes at once. ^C stops; what is there stays."""
    from cacheop.cli import loading

    copies = loading.parse_replicas(replicas)
    if cluster := of(name, Choice(context, kubeconfig, namespace)):
        from cacheop.cli.kube import verbs as objects

        return objects.load(cluster, name, path or [], version, copies, output)
    return loading.load(name, namespace, path or [], version, copies, output)


@app.command(epilog=epilog("cacheop refresh demo"))
def refresh(
    name: Name = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Output = Format.TEXT,
) -> int:
    """List the origin again; changed files make a new version."""
    if cluster := of(name, Choice(context, kubeconfig, namespace)):
        from cacheop.cli.kube import verbs as objects

        return objects.refresh(cluster, name, output)
    from cacheop.cli import verbs

    return verbs.refresh(name, namespace, output)


@app.command(epilog=epilog("cacheop evict demo --path /train", "cacheop evict demo --yes"))
def evict(
    *,
    name: Name = "",
    path: Paths = None,
    version: Annotated[
        str, typer.Option(metavar="VERSION", help="only what no other version shares")
    ] = "",
    yes: Yes = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Output = Format.TEXT,
) -> int:
    """Throw cached files away; the origin keeps them."""
    if cluster := of(name, Choice(context, kubeconfig, namespace)):
        from cacheop.cli.kube import workers

        return workers.evict(cluster, name, path or [], version, output, yes=yes)
    from cacheop.cli import verbs

    return verbs.evict(name, namespace, path or [], version, output, yes=yes)


@app.command(epilog=epilog("cacheop top", "cacheop top demo -o json --count 60"))
def top(
    name: Name = "",
    count: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="snapshots, one a second [default: until ^C; 1 off a terminal]"
        ),
    ] = None,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Output = Format.TEXT,
) -> int:
    """Watch the nodes: where reads come from, hit ratio, hottest files."""
    if cluster := of(name, Choice(context, kubeconfig, namespace)):
        from cacheop.cli.kube import workers

        return workers.watch(cluster, name, count, output)
    from cacheop.cli import top as implementation

    return implementation.top(name, namespace, count, output)
