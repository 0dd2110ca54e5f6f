"""What the demo prints: one small table, a picture of every call, and the verdict."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ibidem.demo.acts import Act, Later
from ibidem.demo.script import SCRIPT

WIDTH = 17
"""Of the longest bar, in characters."""
COLOURS = {"ran": "yellow", "memo": "green", "shared": "cyan"}
MARKS = {"ran": "■", "memo": "□", "shared": "◇", "bar": "━", "yes": "✓", "no": "✗", "then": "→"}
PLAIN = {"ran": "#", "memo": ".", "shared": "+", "bar": "=", "yes": "ok", "no": "NO", "then": "->"}
"""For terminals that know ASCII only."""


def show(acts: Sequence[Act], later: Later | None = None, *, scripted: bool) -> bool:
    """Print what happened and judge it.

    Args:
        acts: The act without ibidem, then those with it.
        later: How the last of them went on in a new process.
        scripted: Whether the model had to say the same in every act.

    Returns:
        Whether everything the agent read was right.
    """
    console = Console(highlight=False)
    marks = PLAIN if console.options.ascii_only else MARKS
    bare, *others = acts
    decider = "a script" if scripted else "Claude"
    console.print(f"\n{len(SCRIPT)} turns with a support agent: {decider} decides, a shop answers by HTTP.")
    judged = [(act, list(_verdicts(bare, act, marks, scripted=scripted))) for act in others]
    if later is not None:
        console.print("Then a new process goes on with the conversation.")
        judged.append((later, list(_later_verdicts(later, scripted=scripted))))
    console.print()
    console.print(_summary([bare, *(act for act, _ in judged)], marks))
    right = True
    for act, verdicts in judged:
        console.print()
        console.print(_picture(act, marks))
        console.print()
        for verdict, text in verdicts:
            console.print(Text.assemble((marks["yes"], "green") if verdict else (marks["no"], "bold red"), " ", text))
            right = right and verdict
    return right


def _summary(acts: Sequence[Act], marks: dict[str, str]) -> Table:
    table = _grid()
    table.add_row("", *(Text(header, "dim") for header in ("model called", "server received", "seconds")))
    longest = max(act.seconds for act in acts)
    for act in acts:
        bar = Text(marks["bar"] * max(1, round(WIDTH * act.seconds / longest)), "blue")
        called, received = str(len(act.calls)), str(act.requests.total())
        table.add_row(Text(act.name, "bold"), called, received, f"{act.seconds:.2f}", bar)
    for column in table.columns[1:4]:
        column.justify = "right"
    table.columns[4].overflow = "fold"
    return table


def _picture(act: Act, marks: dict[str, str]) -> Table:
    table = _grid()
    legend = Text("   ").join(Text.assemble((marks[came], colour), " ", came) for came, colour in COLOURS.items())
    table.add_row(Text(act.name, "bold"), legend)
    for tool in dict.fromkeys(call.tool for call in act.calls):
        came = [call.came for call in act.calls if call.tool == tool]
        cells = Text(" ").join(Text(marks[each], COLOURS[each]) for each in came)
        counts = ", ".join(f"{came.count(each)} {each}" for each in COLOURS if each in came)
        table.add_row(tool, cells, Text(counts, "dim"))
    return table


def _grid() -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(min_width=16)  # as wide as the longest name, so that the tables stand one below the other
    return table


def _verdicts(bare: Act, act: Act, marks: dict[str, str], *, scripted: bool) -> Iterator[tuple[bool, str]]:
    for seen in act.rereads:
        change = f"{seen.before} {marks['then']} {seen.after} ({seen.came})"
        yield seen.fresh, f"{'fresh' if seen.fresh else 'STALE'} after its own write: {seen.order_id} {change}"
    if not scripted:
        return
    if not act.rereads:
        yield False, "the agent did not read again what it wrote"
    same = act.said == bare.said
    answers = sum(kind == "tool" for kind, *_ in bare.said)
    alike = "are identical" if same else "DIFFER"
    yield same, f"the transcripts {alike}: {len(bare.said)} messages, {answers} answers of tools among them"


def _later_verdicts(act: Later, *, scripted: bool) -> Iterator[tuple[bool, str]]:
    if act.failed:
        yield False, f"the new process FAILED: {act.failed}"
        return
    arrived = sum(count for request, count in act.requests.items() if request.startswith("GET "))
    # Claude may ask what nobody has asked before; the script asks only what was.
    yield arrived == 0 or not scripted, f"{arrived} of {len(act.reads)} reads reached the shop"
    for order_id, truth in act.truth.items():
        wrong = [call for call in act.seen(order_id) if call.field("status") != truth]
        if wrong:
            yield False, f"STALE in the new process: {order_id} {wrong[0].field('status')} ({wrong[0].came})"
        elif act.seen(order_id):
            yield True, f"{order_id} still {truth} ({act.seen(order_id)[0].came})"
        elif scripted:
            yield False, f"the new process did not read {order_id}"
