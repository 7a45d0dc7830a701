"""The verb that shows it all."""

from slipway.cli.terminal import EXIT_CODES, app, out


@app.command(epilog=EXIT_CODES)
def demo() -> None:
    """Play the loop on a scratch clone of the last commit.

    Reads this repository's last commit. Writes build/demo/ only.
    """
    from slipway.demo import play

    play.play(out)
