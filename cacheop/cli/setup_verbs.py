"""The verbs that need no running Dataset: doctor, convert, version."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from cacheop.cli.options import Context, Kubeconfig, Namespace, Output, epilog
from cacheop.cli.output import Format

app = typer.Typer()


@app.command(
    epilog=epilog(
        "cacheop doctor",
        "cacheop doctor -f dataset.yaml --cache /nvme/cache",
        "cacheop doctor --cluster -n vision",
    )
)
def doctor(
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "-f", "--file", metavar="FILE", help="check its credentials and origin too; repeatable"
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="cache directory to look at")
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="look at the cluster of the current context instead")
    ] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Output = Format.TEXT,
) -> int:
    """Say what this machine, or a cluster, lacks, what that costs and what to do."""
    if cluster or context or kubeconfig:
        from cacheop.cli.kube import doctor as preflight
        from cacheop.cli.kube.place import Choice

        return preflight.run(Choice(context, kubeconfig, namespace), output)
    from cacheop.cli import doctor as implementation

    return implementation.doctor(tuple(file or ()), cache, output)


@app.command(
    epilog=epilog(
        "cacheop convert fluid.yaml > dataset.yaml",
        "kubectl get datasets.data.fluid.io,alluxioruntimes -A -o yaml | cacheop convert -",
    )
)
def convert(
    file: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="YAML files with Fluid's resources, or -"),
    ],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="write there, not to stdout")
    ] = None,
    output: Output = Format.TEXT,
) -> int:
    """Turn Fluid's Dataset, runtime and DataLoad into ours. Exit code 1: see the TODOs first."""
    from cacheop.cli import convert as implementation

    return implementation.run(file, to, output)


@app.command()
def version(output: Output = Format.TEXT) -> int:
    """Print the version of cacheop."""
    from cacheop.cli import output as shell

    installed = importlib.metadata.version("cacheop")
    if output is Format.JSON:
        shell.print_json({"version": installed})
    else:
        print(installed)
    return 0
