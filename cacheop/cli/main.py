"""The `cacheop` command: what the verbs take.

What they do is imported when they are called, so that help and completion start at once.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated, NoReturn

import typer

from cacheop.api.errors import CacheopError
from cacheop.cli import dataset_verbs, setup_verbs
from cacheop.cli.options import (
    Files,
    MountMode,
    Name,
    Namespace,
    NodeName,
    Output,
    Redis,
    Yes,
    Zones,
    complete_name,
    epilog,
    seconds_of,
)
from cacheop.cli.output import Format

app = typer.Typer(
    name="cacheop",
    help="A cache for AI training data: a Dataset file becomes local speed from slow storage.",
    epilog="""\b
First steps:
  cacheop doctor                 what this machine lacks
  cacheop up -f dataset.yaml     list the origin, start the cache
  cacheop status                 how full it is, how well it does
Then read cacheop://NAME/ with fsspec, pandas, PyTorch, …, or mount it (up --mount DIR).

\b
Exit codes: 0 done, 1 failed, 2 bad input, 3 nothing runs, 4 not found.""",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.command(
    epilog=epilog(
        "cacheop up -f dataset.yaml",
        "cacheop up -f dataset.yaml -f secret.yaml --cache /nvme/cache --mount /mnt/demo",
        "CACHEOP_SECRET_S3_KEY=… CACHEOP_SECRET_S3_SECRET=… cacheop up -f dataset.yaml",
        "cacheop up -f dataset.yaml --nodes 4 --zones 2",
        "CACHEOP_REDIS=redis://admin:…@127.0.0.1:6379 cacheop up -f dataset.yaml --nodes 4",
    )
)
def up(
    *,
    file: Files,
    nodes: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="cache workers that share one cache")
    ] = 1,
    zones: Zones = 1,
    redis: Redis = "",
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="cache directory [default: $CACHEOP_CACHE_DIR, /var/cache/cacheop for root, "
            "~/.cache/cacheop]",
            show_default=False,
        ),
    ] = None,
    mount: Annotated[
        Path | None, typer.Option(metavar="DIR", help="mount the files of node-0 there (root only)")
    ] = None,
    mount_mode: Annotated[
        MountMode | None,
        typer.Option(help="how to serve the mount, instead of the Dataset's spec.mount.mode"),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="serve clients on TCP too, with a token")
    ] = "",
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="/metrics and /healthz; port 0 picks one")
    ] = "127.0.0.1:0",
    foreground: Annotated[
        bool, typer.Option("--foreground", help="stay; ^C or SIGTERM takes it down")
    ] = False,
    timeout: Annotated[
        str,
        typer.Option(metavar="TIME", help="give up after so long without progress, like 90s or 5m"),
    ] = "60s",
    output: Output = Format.TEXT,
) -> int:
    """Start the cache workers of a Dataset file on this machine. Downloads only the listing."""
    from cacheop.cli import redis_url
    from cacheop.cli import up as implementation

    options = implementation.Options(
        files=tuple(file),
        nodes=nodes,
        zones=zones,
        redis=redis_url.parse(redis) if redis else None,
        cache=cache,
        mount=mount,
        mount_mode=mount_mode or "",
        listen=listen,
        http=http,
        foreground=foreground,
        timeout_seconds=seconds_of(timeout),
    )
    return implementation.up(options, output)


@app.command(
    epilog=epilog("cacheop ls", "cacheop ls demo/train -l", "cacheop ls demo@1f2e3d4c5b6a7988/")
)
def ls(
    path: Annotated[
        str,
        typer.Argument(
            metavar="[NAME[@VERSION]][/PATH]",
            help="a directory or file of a Dataset",
            autocompletion=complete_name,
            show_default=False,
        ),
    ] = "",
    long: Annotated[bool, typer.Option("-l", "--long", help="size, time, cached or not")] = False,
    namespace: Namespace = "",
    output: Output = Format.TEXT,
) -> int:
    """List the files of a Dataset. Reads the manifest, not the origin."""
    from cacheop.cli import listing

    return listing.list_path(path, namespace, output, long=long)


@app.command(epilog=epilog("cacheop versions demo", "cacheop versions demo -o json"))
def versions(name: Name = "", namespace: Namespace = "", output: Output = Format.TEXT) -> int:
    """Show the versions that are kept."""
    from cacheop.cli import verbs

    return verbs.versions(name, namespace, output)


@app.command(epilog=epilog("cacheop suspend demo"))
def suspend(name: Name = "", namespace: Namespace = "", output: Output = Format.TEXT) -> int:
    """Stop reading from the origin; what is cached can still be read."""
    from cacheop.cli import verbs

    return verbs.set_suspended(name, namespace, output, suspended=True)


@app.command(epilog=epilog("cacheop resume demo"))
def resume(name: Name = "", namespace: Namespace = "", output: Output = Format.TEXT) -> int:
    """Read from the origin again."""
    from cacheop.cli import verbs

    return verbs.set_suspended(name, namespace, output, suspended=False)


@app.command(epilog=epilog("cacheop drain demo --node node-1 && cacheop down demo --node node-1"))
def drain(
    *,
    name: Name = "",
    node: NodeName,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="give up after so long")] = "5m",
    namespace: Namespace = "",
    output: Output = Format.TEXT,
) -> int:
    """Let a node hand what only it has to the others, before it is stopped. Exit code 1: late."""
    from cacheop.cli import draining

    return draining.drain(name, namespace, node, seconds_of(timeout), output)


@app.command(
    epilog=epilog(
        "cacheop down",
        "cacheop down --all",
        "cacheop down demo --purge --yes",
        "cacheop down demo --node node-1",
    )
)
def down(
    *,
    name: Name = "",
    node: Annotated[
        str,
        typer.Option("--node", metavar="NODE", help="this one only; `up` starts it again"),
    ] = "",
    everything: Annotated[bool, typer.Option("--all", "-a", help="every Dataset")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="delete the cache too")] = False,
    yes: Yes = False,
    namespace: Namespace = "",
    output: Output = Format.TEXT,
) -> int:
    """Stop the workers of a Dataset and unmount it. The cache stays for the next `up`."""
    from cacheop.cli import down as implementation

    return implementation.down(
        name, namespace, output, node=node, everything=everything, purge=purge, yes=yes
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("cacheop"))
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="print it and stop"),
    ] = False,
) -> None:
    """Options of the command itself, before a verb."""


app.add_typer(dataset_verbs.app)
app.add_typer(setup_verbs.app)


def run(arguments: list[str] | None = None) -> NoReturn:
    """The entry point: one line for an error, the exit code of its class."""
    sys.exit(code_of(arguments))


def code_of(arguments: list[str] | None = None) -> int:
    """Run one command line; the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names that are not UTF-8 go out as they came from the origin.
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        code: int | None = app(args=arguments, prog_name="cacheop", standalone_mode=False)
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt:
        return 130
    except CacheopError as error:
        _say(str(error))
        return error.exit_code
    except typer.TyperException as error:
        _report_usage(error)
        return 2
    except BrokenPipeError:
        # The reader of the pipe left; the interpreter must not write into it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("CACHEOP_DEBUG"):
            raise
        _say(f"a bug in cacheop: {error!r}. Set CACHEOP_DEBUG=1 to see the traceback")
        return 1


def _say(text: str) -> None:
    print(f"error: {text}", file=sys.stderr, flush=True)


def _report_usage(error: typer.TyperException) -> None:
    """One line and where the help is; the help itself when nothing at all was said."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "cacheop"
    message = error.format_message().strip()
    if context is not None and message == context.get_help().strip():
        print(message, file=sys.stderr)
    else:
        _say(f"{' '.join(message.split())} See `{command} --help`")


if __name__ == "__main__":
    run()
