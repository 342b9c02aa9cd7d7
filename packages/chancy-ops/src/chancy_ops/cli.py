"""`chancy COMMAND`: the table of the commands, each of which is imported when it is asked for, and how they end."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem, shell_complete

from .__about__ import __version__
from .terminal.faults import DONE, REFUSED, STOPPED, told
from .terminal.site import site_options

COMMANDS = {
    "audit": ("audit", "What people did."),
    "batch": ("batch", "How far a batch is."),
    "cancel": ("sweep", "Stop jobs."),
    "check": ("check", "Compare a module's tasks with what waits in the database."),
    "completion": ("completion", "Print what makes a shell complete commands and options."),
    "dashboard": ("dashboard", "Show the queue in a browser."),
    "delete": ("sweep", "Delete jobs that wait or are finished."),
    "dev": ("dev", "Develop with all that a queue needs."),
    "doctor": ("doctor", "Look for what keeps the queue from working well."),
    "edit": ("steer", "Change when a waiting job is due, or its priority."),
    "failures": ("failures", "What goes wrong, each bug in a line."),
    "forget-steps": ("steps", "Forget what a job has done of itself."),
    "grants": ("grants", "Print the SQL that grants roles of the database what they need."),
    "graph": ("flow", "A job and what it needs, as a tree."),
    "job": ("jobs", "Everything about one job."),
    "jobs": ("jobs", "Jobs, newest first."),
    "limit": ("steer", "Let at most so many jobs of a queue run at a time."),
    "migrate": ("migrate", "Bring the schema up to date, or say what is missing."),
    "pause": ("steer", "Let no job of a queue or task begin, or a schedule not tick."),
    "queues": ("queues", "The queues, and what waits in them."),
    "requeue": ("sweep", "Make finished jobs ready again."),
    "resume": ("steer", "Let what is paused go on."),
    "run-now": ("schedules", "Have a schedule tick now."),
    "schedules": ("schedules", "The schedules, and when they tick."),
    "signal": ("steps", "Tell a job what it waits for."),
    "steps": ("steps", "What a job has done of itself."),
    "stop": ("sweep", "Stop what somebody does to many jobs."),
    "submit": ("submit", "Submit a job."),
    "throughput": ("tally", "What workers have done, and how fast."),
    "top": ("top", "Watch queues, running jobs and workers."),
    "why": ("why", "Why a job does not run."),
    "workers": ("queues", "The workers that are believed alive."),
}
"""Of each command the room, and what the list of commands says of it."""


class Commands(click.Group):
    """The commands by name. The list of them needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import its room."""
        if cmd_name not in COMMANDS:
            return None
        room = importlib.import_module(f"{__package__}.command.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(room, cmd_name.replace("-", "_"))
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list, for `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands, and the options before them."""
        names = [CompletionItem(name, help=said) for name, (_, said) in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


chancy = Commands(
    "chancy",
    params=site_options(),
    help="Look at a queue of Chancy, submit jobs, and steer it.\n\n"
    "Ends with 0 when it is done, 1 when a check failed or a thing asked for is not there, and 2 for bad usage, "
    "or a database that is down, not migrated, or newer than this version.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
chancy = click.version_option(__version__, prog_name="chancy")(chancy)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its code. What went wrong is one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the encoding of a terminal lacks is no reason to say nothing
            stream.reconfigure(errors="backslashreplace")
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `chancy jobs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (click.Abort, KeyboardInterrupt):
        return failed("stopped", STOPPED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return REFUSED
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "chancy"
        return failed(f"{error.format_message().rstrip('.')}; see {path} --help", error.exit_code)
    except click.ClickException as error:
        return failed(error.format_message(), error.exit_code)
    except Exception as error:
        refusal = told(error)
        if refusal is None:
            raise
        return failed(str(refusal), refusal.code)
    return code if isinstance(code, int) else DONE


def run(arguments: Sequence[str]) -> object:
    """As `click.Command.main` does, which ends with 1 where a pipe is closed early and does not tell that apart."""
    if completing := os.environ.get("_CHANCY_COMPLETE"):
        return shell_complete(chancy, {}, "chancy", "_CHANCY_COMPLETE", completing)
    try:
        with chancy.make_context("chancy", list(arguments)) as ctx:
            return chancy.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code


def failed(message: str, code: int) -> int:
    """Say it in one line; the code."""
    click.echo(f"chancy: {' '.join(message.split())}", err=True)
    return code
