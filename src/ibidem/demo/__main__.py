"""Play the same conversation without ibidem, with it and on in a new process, and print what each cost."""

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        arguments: The command line; None for the one of this process.

    Returns:
        0; 1 if the acts differ, a read after a write was stale, or the new process did not find what the disk holds; 2
        if the demo cannot run here.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ibidem.demo",
        description="A LangGraph support agent talks to a shop over HTTP, once without ibidem and once with it;"
        " then a new process goes on with the conversation. Nothing leaves this machine, unless Claude decides (--live).",
    )
    parser.add_argument("--live", action="store_true", help="let Claude decide what to call; needs ANTHROPIC_API_KEY")
    parser.add_argument("--model", default="claude-sonnet-5-5", help="which Claude, with --live (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.live and not os.environ.get("ANTHROPIC_API_KEY"):
        return _refuse("--live needs ANTHROPIC_API_KEY; without --live the demo needs no key")
    switch = os.environ.get("IBIDEM")
    if switch:
        return _refuse(f"the environment variable IBIDEM={switch!r} switches off what the demo shows; unset it")
    try:
        from ibidem.demo import acts, view
    except ModuleNotFoundError as error:
        return _refuse(f"no module named {error.name}; the demo needs its extra: pip install 'ibidem[demo]'")
    except NotImplementedError as error:  # the platform lacks what a store on the disk takes
        return _refuse(str(error))
    if not options.live:
        return 0 if view.show(*acts.play_all(), scripted=True) else 1
    from ibidem.demo.live import Unreachable

    print(f"asking {options.model}; this takes a minute or two", file=sys.stderr)
    try:
        played = acts.play_all(options.model)
    except Unreachable as error:  # named by its kind alone: what it says may quote a request
        return _refuse(f"Claude could not be asked ({type(error).__name__})")
    return 0 if view.show(*played, scripted=False) else 1


def _refuse(reason: str) -> int:
    print(f"ibidem.demo: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
