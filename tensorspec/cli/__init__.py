"""The command line: ``tensorspec demo | info | fit | report | doctor``."""

from tensorspec.cli.command import main as main
