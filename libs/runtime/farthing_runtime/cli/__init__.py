"""The `farthing` command.

One file a group of commands; each imports what it needs when it runs, so that `farthing --help` is quick.
"""

from __future__ import annotations

import sys

import typer
from farthing_core.errors import FarthingError

from farthing_runtime.cli.alerts import alerts_app
from farthing_runtime.cli.budgets import budgets_app
from farthing_runtime.cli.calibrate import calibrate_app
from farthing_runtime.cli.call import call
from farthing_runtime.cli.decisions import decisions_app
from farthing_runtime.cli.demo import demo
from farthing_runtime.cli.diversification import diversification
from farthing_runtime.cli.encryption import encryption_app
from farthing_runtime.cli.experiments import experiments_app
from farthing_runtime.cli.host import config, health, migrate, serve
from farthing_runtime.cli.keys import keys_app
from farthing_runtime.cli.ledger import ledger_app
from farthing_runtime.cli.limits import limits_app
from farthing_runtime.cli.models import models_app
from farthing_runtime.cli.performance import performance
from farthing_runtime.cli.prices import prices_app
from farthing_runtime.cli.quality import feedback, quality, recommendations
from farthing_runtime.cli.replay import replay
from farthing_runtime.cli.rules import route_app, rules_app
from farthing_runtime.cli.usage import usage

app = typer.Typer(
    name="farthing",
    help="Makes calls to language models cheaper without making them worse, and proves it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)
_ON_THEIR_OWN = (
    serve,
    demo,
    replay,
    call,
    usage,
    performance,
    quality,
    diversification,
    recommendations,
    feedback,
    health,
    config,
    migrate,
)
for command in _ON_THEIR_OWN:
    app.command()(command)
app.add_typer(keys_app, name="keys", help="API keys of the HTTP edge.")
app.add_typer(
    encryption_app, name="encryption", help="Keys under which payloads are kept: rotating them, erasing them for ever."
)
app.add_typer(budgets_app, name="budgets", help="Limits on what scopes may spend.")
app.add_typer(ledger_app, name="ledger", help="The journal, and the proof that the balances are what it says.")
app.add_typer(limits_app, name="limits", help="Rate limits.")
app.add_typer(models_app, name="models", help="Models, where they run and how that is going.")
app.add_typer(prices_app, name="prices", help="The price book.")
app.add_typer(
    calibrate_app,
    name="calibrate",
    help="Fits cascades on labelled answers (--data, --strong, --keep …), says what they promise, puts them in force.",
)
app.add_typer(rules_app, name="rules", help="Rules by which the router chooses.")
app.add_typer(route_app, name="route", help="Whom the router would ask, and why.")
app.add_typer(experiments_app, name="experiments", help="Comparisons between models, calibrations and rules' actions.")
app.add_typer(decisions_app, name="decisions", help="Which model was chosen for which request, why, and what came of it.")
app.add_typer(alerts_app, name="alerts", help="Alerts of budgets and costs, and the rules that raise them.")


def main() -> None:
    """Runs the command; a named failure is one line on standard error and exit status 2."""
    try:
        app()
    except FarthingError as error:
        print(f"farthing: {error.message}", file=sys.stderr)
        raise SystemExit(2) from error
