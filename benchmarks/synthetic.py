"""Write a recorded conversation that never took place: a small world, and an agent that forgets what it has read.

The recordings of real agents repeat few calls, and mostly to check a change. This is the other kind: a support agent works through
several tickets in turn, writes to one of them, and reads the others again before the next step. Forgetting every read at
every write saves little there; knowing what a write touches saves nearly everything. The results are true: every call is
executed on the world in the order of its message, and what a call shows may depend on things that it does not name.

A share `mixed` of the steps sends the write, its check and another read in one message. Recorded agents rarely do (1 of 162
messages with several calls of `tau2_retail.jsonl`), so the default is low. Which of such a check and its write runs first is open
where nothing orders them, so its result cannot be remembered, while the second oracle counts in the order of the message:
with many mixed messages, less can be saved than it says. They are what shows that nothing wrong is saved.

One seed makes one file, byte by byte. Its form is that of the recorded ones: one JSON object a line, with `turns` of `calls`.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache"
MIXED = 0.02
WRITES = ("comment_ticket", "close_ticket", "cancel_order", "change_address", "edit_article", "export_books")
RATES = {("EUR", "USD"): 1.08, ("EUR", "GBP"): 0.85, ("USD", "EUR"): 0.93, ("GBP", "EUR"): 1.18}
CITIES = ("Bergen", "Ghent", "Lyon", "Porto", "Turku", "Utrecht")
TOPICS = ("refunds", "shipping", "returns", "addresses")
Request = tuple[str, dict[str, object]]


class Refused(Exception):  # noqa: N818 (what a tool says, not a fault of this script)
    """What a tool of the world answers when it cannot do what was asked."""


class World:
    """Accounts, orders, tickets and articles; a method is a tool."""

    def __init__(self, rng: random.Random) -> None:
        self.accounts = {
            f"A{n}": {"account_id": f"A{n}", "city": rng.choice(CITIES), "balance": rng.randrange(0, 90)}
            for n in range(6)
        }
        self.orders = {
            f"O{n}": {
                "order_id": f"O{n}",
                "account_id": f"A{n % 6}",
                "amount": rng.randrange(5, 200),
                "status": rng.choice(("pending", "pending", "shipped")),
            }
            for n in range(12)
        }
        self.tickets = {
            f"T{n}": {
                "ticket_id": f"T{n}",
                "account_id": f"A{n % 6}",
                "order_id": f"O{n}",
                "status": "open",
                "comments": [rng.choice(TOPICS)],
            }
            for n in range(10)
        }
        self.articles = {
            f"K{n}": {"article_id": f"K{n}", "topic": TOPICS[n % 4], "text": f"version {n}"} for n in range(5)
        }

    def call(self, name: str, args: dict[str, object]) -> tuple[str, bool]:
        """Return what the tool `name` answers, as text, and whether that is an error."""
        try:
            return json.dumps(getattr(self, name)(**args)), False
        except Refused as refusal:
            return f"Error: {refusal}", True

    def _find(self, kind: str, name: object) -> dict:
        found = getattr(self, kind).get(name)
        if found is None:
            raise Refused(f"{name} is not among the {kind}")
        return found

    # Reads.

    def get_account(self, account_id):
        theirs = [t for t in self.tickets.values() if t["account_id"] == account_id and t["status"] == "open"]
        return {**self._find("accounts", account_id), "open_tickets": len(theirs)}

    def get_order(self, order_id):
        order = self._find("orders", order_id)
        return {**order, "ship_to": self.accounts[order["account_id"]]["city"]}

    def list_orders(self, account_id):
        return {o["order_id"]: o["status"] for o in self.orders.values() if o["account_id"] == account_id}

    def get_ticket(self, ticket_id):
        return self._find("tickets", ticket_id)

    def list_open_tickets(self):
        return [t["ticket_id"] for t in self.tickets.values() if t["status"] == "open"]

    def get_article(self, article_id):
        return self._find("articles", article_id)

    def search_articles(self, topic, limit):
        return [a for a in self.articles.values() if a["topic"] == topic][:limit]

    def convert_currency(self, amount, source, target):
        return round(amount * RATES[source, target], 2)

    # Writes.

    def comment_ticket(self, ticket_id, text):
        self._find("tickets", ticket_id)["comments"].append(text)
        return "commented"

    def close_ticket(self, ticket_id):
        ticket = self._find("tickets", ticket_id)
        if ticket["status"] != "open":
            raise Refused(f"{ticket_id} is closed")
        ticket["status"] = "closed"
        return "closed"

    def cancel_order(self, order_id):
        order = self._find("orders", order_id)
        if order["status"] != "pending":
            raise Refused(f"{order_id} is {order['status']}")
        order["status"] = "cancelled"
        self.accounts[order["account_id"]]["balance"] += order["amount"]
        return "cancelled"

    def change_address(self, account_id, city, confirmed):
        account = self._find("accounts", account_id)
        if not confirmed:
            raise Refused("ask for confirmation first")
        account["city"] = city
        return "changed"

    def edit_article(self, article_id, text):
        self._find("articles", article_id)["text"] = text
        return "edited"

    def export_books(self):
        for account in self.accounts.values():
            account["balance"] += 1  # rounding, in favour of the customer
        return "exported"


def context(rng: random.Random, tickets: list[int]) -> Request:
    """Return one of the reads by which an agent refreshes what it knew."""
    ticket = rng.choice(tickets)
    pair = rng.choice(tuple(RATES))
    return rng.choices(
        (
            ("get_ticket", {"ticket_id": f"T{ticket}"}),
            ("get_account", {"account_id": f"A{ticket % 6}"}),
            ("get_order", {"order_id": f"O{ticket}"}),
            ("get_article", {"article_id": f"K{ticket % 3}"}),
            ("search_articles", {"topic": TOPICS[ticket % 4], "limit": 2}),
            ("list_orders", {"account_id": f"A{ticket % 6}"}),
            ("list_open_tickets", {}),
            ("convert_currency", {"amount": 10, "source": pair[0], "target": pair[1]}),
            ("get_order", {"order_id": "O404"}),
        ),
        (6, 6, 6, 6, 3, 2, 2, 2, 1),
    )[0]


def change(rng: random.Random, ticket: int, step: int) -> tuple[Request, Request]:
    """Return one write, and the read by which the agent checks it."""
    account, order, article = f"A{ticket % 6}", f"O{ticket}", f"K{rng.randrange(5)}"
    address = {"account_id": account, "city": rng.choice(CITIES), "confirmed": rng.random() < 0.8}
    check_ticket = ("get_ticket", {"ticket_id": f"T{ticket}"})
    check_account = ("get_account", {"account_id": account})
    return rng.choices(
        (
            (("comment_ticket", {"ticket_id": f"T{ticket}", "text": f"step {step}"}), check_ticket),
            (("close_ticket", {"ticket_id": f"T{ticket}"}), check_account),
            (("cancel_order", {"order_id": order}), check_account),
            (("change_address", address), ("get_order", {"order_id": order})),
            (
                ("edit_article", {"article_id": article, "text": f"step {step}"}),
                ("get_article", {"article_id": article}),
            ),
            (("export_books", {}), check_account),
        ),
        (60, 8, 8, 6, 8, 2),
    )[0]


def steps(rng: random.Random, mixed: float) -> Iterator[tuple[int, list[Request]]]:
    """Yield the messages of one conversation, each with the turn of the user that it belongs to."""
    tickets = rng.sample(range(10), 4)
    yield 1, [("list_open_tickets", {})]
    yield 1, [("get_ticket", {"ticket_id": f"T{ticket}"}) for ticket in tickets]
    for step in range(12):
        user_turn = 2 + step // 3
        reads = [context(rng, tickets) for _ in range(rng.randrange(2, 6))]
        if rng.random() < 0.6:
            yield user_turn, reads  # all at once, now and then the same one twice
        else:
            yield from ((user_turn, [read]) for read in reads)
        write, check = change(rng, tickets[step % 4], step)
        if rng.random() < mixed:  # the check and another read in the very message of the write: their order decides
            yield user_turn, [write, check, context(rng, tickets)]
        else:
            yield user_turn, [write]
            if rng.random() < 0.7:
                yield user_turn, [check]


def conversation(seed: int, number: int, mixed: float) -> dict[str, object]:
    """Return one conversation in the form of the recorded ones."""
    rng = random.Random(f"{seed}/{number}")
    world = World(rng)
    turns = []
    for at, (user_turn, requests) in enumerate(steps(rng, mixed)):
        calls = []
        for index, (name, args) in enumerate(requests):
            result, is_error = world.call(name, args)
            shuffled = dict(rng.sample(list(args.items()), len(args)))  # models do not keep an order of keys
            kind = "write" if name in WRITES else "read"
            about = {"id": f"call_{at}_{index}", "name": name, "args": shuffled}
            calls.append({**about, "result": result, "is_error": is_error, "kind": kind})
        turns.append({"user_turn": user_turn, "actor": "assistant", "calls": calls})
    name = f"synthetic/{seed}/{number}"
    return {
        "id": name,
        "source": "benchmarks/synthetic.py",
        "dataset": "synthetic",
        "domain": "synthetic",
        "turns": turns,
    }


def write(path: Path | None = None, *, seed: int = 1, conversations: int = 60, mixed: float = MIXED) -> Path:
    """Write the file of a seed.

    Args:
        path: where to; without one, a file of its own in `.cache` of the project.
        seed: the same seed writes the same bytes.
        conversations: how many.
        mixed: the share of steps that send a write and reads of the same in one message, 0 to 1.

    Returns:
        Where it was written.
    """
    path = path or CACHE / f"synthetic-{seed}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(conversation(seed, number, mixed)) for number in range(conversations))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", nargs="?", type=Path, help="the file to write (default: in .cache)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=60)
    parser.add_argument("--mixed", type=float, default=MIXED, help="share of steps that mix a write and reads, 0 to 1")
    given = parser.parse_args()
    print(write(given.path, seed=given.seed, conversations=given.conversations, mixed=given.mixed))
