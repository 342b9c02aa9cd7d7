"""`chancy completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from chancy_ops.terminal.site import Site, command


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(site: Site, shell: str) -> None:
    """Print what makes a shell complete commands and options.

    Append it to the shell's start file: `chancy completion bash >> ~/.bashrc`.
    """
    made = get_completion_class(shell)
    assert made is not None  # click knows these three
    root = click.get_current_context().find_root().command
    click.echo(made(root, {}, "chancy", "_CHANCY_COMPLETE").source())
