"""What several verbs of the `cacheop` command take, and how they say it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cacheop.cli.output import Format


def complete_name(incomplete: str) -> list[str]:
    """The Datasets that run here, for the shell's completion."""
    from cacheop import local

    found = [f"{r.namespace}/{r.name}" for r in local.all_records()]
    found += [r.name for r in local.all_records()]
    return sorted(name for name in found if name.startswith(incomplete))


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="name, namespace/name or name.namespace; not needed when one Dataset runs here",
        autocompletion=complete_name,
        show_default=False,
    ),
]
Namespace = Annotated[
    str, typer.Option("-n", "--namespace", metavar="NS", help="namespace of NAME")
]
Context = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="ask the cluster of this context [default: what runs here, else the current]",
        show_default=False,
    ),
]
Kubeconfig = Annotated[
    str, typer.Option(metavar="FILE", help="ask the cluster of this file", show_default=False)
]
Output = Annotated[Format, typer.Option("-o", "--output", help="what to print on stdout")]
Paths = Annotated[
    list[str] | None,
    typer.Option(
        "--path", metavar="PATH", help="file or directory in the Dataset; may be said several times"
    ),
]
Files = Annotated[
    list[Path],
    typer.Option(
        "-f",
        "--file",
        metavar="FILE",
        help="YAML file with Dataset and Secret documents, a directory, or - ; repeatable",
    ),
]
Zones = Annotated[
    int,
    typer.Option(
        min=1, metavar="K", help="deal the nodes to zone-0 … in turn; each zone has all bytes"
    ),
]
Redis = Annotated[
    str,
    typer.Option(
        metavar="URL",
        envvar="CACHEOP_REDIS",
        help="let the nodes meet in a Redis, redis://[user:password@]host:port[/db] of a user who "
        "may make users; each Dataset gets one of its own",
        show_default=False,
    ),
]
NodeName = Annotated[str, typer.Option("--node", metavar="NODE", help="like node-1")]
MountMode = Literal["Auto", "Native", "ZeroOpen", "Passthrough", "Fuse"]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]


def seconds_of(text: str) -> float:
    """The seconds of an option like 90s or 5m."""
    from cacheop.api.quantity import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a duration such as 60s or 5m") from error


def epilog(*examples: str) -> str:
    """Examples below a help text, one a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
