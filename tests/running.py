"The command in this process, as `from running import cli`."

import warnings
from typing import NamedTuple

from typer.testing import CliRunner

from cpvae.cli.commands import app


class Done(NamedTuple):
    "How a command ended."

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        "All that was said."
        return self.stdout + self.stderr


def cli(*arguments) -> Done:
    "Run the command with these arguments."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = CliRunner().invoke(app, [str(a) for a in arguments])
    return Done(done.exit_code, done.stdout, done.stderr)
