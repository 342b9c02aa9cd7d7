"""`python -m chancy_worker` is `chancy-worker`."""

from .cli import command

if __name__ == "__main__":
    command()
