"""What each tool of a domain touches, declared for the replay, and why.

Written from the names and the arguments of the tools and from what such a tool must depend on, before any number of the
replay was looked at. Where there was a doubt the wider resource was taken: it can cost a saving, never an answer. What makes it
wide is mostly that a write names less than it changes: a cancellation names an order, and changes the balance of a user
whom it does not name, so it writes `user:*`.

A tool that is missing here is undeclared: it is never remembered, and forgets every read of its conversation.

Run as a script, it prints the declarations.
"""

from ibidem import Live, Pure, Read, Write

AIRLINE = {
    # The profile shows membership, reservations, and what is left on certificates and gift cards.
    "get_user_details": Read("user:{user_id}", ttl=None),
    # One booking: flights, passengers, baggage, payments. Nothing in it comes from another booking.
    "get_reservation_details": Read("reservation:{reservation_id}", ttl=None),
    # Seats and prices move with every booking on any leg, and a connection touches airports that the arguments do not name.
    "search_direct_flight": Read("flight:*", ttl=None),
    "search_onestop_flight": Read("flight:*", ttl=None),
    # A list without arguments; no tool here writes airports, but a list is not arithmetic, so it is not `Pure`.
    "list_all_airports": Read("airport:*", ttl=None),
    # Arithmetic on its one argument.
    "calculate": Pure(),
    # A note to itself. It changes nothing, but being called is all it is for: never answered from memory.
    "think": Live(),
    # Takes seats, charges the user, and makes a booking whose id nobody knows yet and may have asked for in vain.
    "book_reservation": Write("reservation:*", "user:{user_id}", "flight:*"),
    # Gives seats back, and refunds a user whom the arguments do not name.
    "cancel_reservation": Write("reservation:{reservation_id}", "user:*", "flight:*"),
    # Other seats, and a charge or a refund.
    "update_reservation_flights": Write("reservation:{reservation_id}", "user:*", "flight:*"),
    # `payment_id` may be a gift card, whose balance the profile shows.
    "update_reservation_baggages": Write("reservation:{reservation_id}", "user:*"),
    # The profile keeps saved passengers; whether new ones are added to it is a doubt, so yes.
    "update_reservation_passengers": Write("reservation:{reservation_id}", "user:*"),
    # A new certificate in one profile.
    "send_certificate": Write("user:{user_id}"),
    # A person takes over, and may change anything.
    "transfer_to_human_agents": Write(),
}

RETAIL = {
    # Who has this address is a question about all users; so is name and postcode, and `modify_user_address` moves people.
    "find_user_id_by_email": Read("user:*", ttl=None),
    "find_user_id_by_name_zip": Read("user:*", ttl=None),
    # The profile shows addresses, payment methods with gift card balances, and the list of orders.
    "get_user_details": Read("user:{user_id}", ttl=None),
    # One order: items, status, payments, its own address.
    "get_order_details": Read("order:{order_id}", ttl=None),
    # Variants with price and availability.
    "get_product_details": Read("product:{product_id}", ttl=None),
    # Names and ids of all products; whether sold-out ones are listed is a doubt, so it depends on each.
    "list_all_product_types": Read("product:*", ttl=None),
    # Arithmetic on its one argument.
    "calculate": Pure(),
    # Each of these names one order; each can refund or charge a user whom it does not name, and move stock of products
    # that it names by item at most.
    "cancel_pending_order": Write("order:{order_id}", "user:*", "product:*"),
    "modify_pending_order_items": Write("order:{order_id}", "user:*", "product:*"),
    "exchange_delivered_order_items": Write("order:{order_id}", "user:*", "product:*"),
    "return_delivered_order_items": Write("order:{order_id}", "user:*", "product:*"),
    # Moves the amount from one payment method to another: balances, no stock.
    "modify_pending_order_payment": Write("order:{order_id}", "user:*"),
    # The order has an address of its own.
    "modify_pending_order_address": Write("order:{order_id}"),
    # Whether open orders follow the profile is a doubt, so they do.
    "modify_user_address": Write("user:{user_id}", "order:*"),
    # A person takes over, and may change anything.
    "transfer_to_human_agents": Write(),
}

# The world of synthetic.py, whose code says what depends on what. `export_books` is left out: the undeclared tool.
SYNTHETIC = {
    # Balance, address, number of open tickets.
    "get_account": Read("account:{account_id}", ttl=None),
    # Status, amount, and the address of its account, which the arguments do not name: see `change_address`.
    "get_order": Read("order:{order_id}", ttl=None),
    # Shows the status of orders that it does not name.
    "list_orders": Read("order:*", ttl=None),
    # Status and comments of one ticket.
    "get_ticket": Read("ticket:{ticket_id}", ttl=None),
    # Names no ticket, shows all that are open.
    "list_open_tickets": Read("ticket:*", ttl=None),
    "get_article": Read("article:{article_id}", ttl=None),
    # A search looks at every article.
    "search_articles": Read("article:*", ttl=None),
    # A fixed table.
    "convert_currency": Pure(),
    "comment_ticket": Write("ticket:{ticket_id}"),
    # The account of the ticket, which is not named, counts its open tickets.
    "close_ticket": Write("ticket:{ticket_id}", "account:*"),
    # Refunds the account of the order, which is not named.
    "cancel_order": Write("order:{order_id}", "account:*"),
    # Orders show the address of their account.
    "change_address": Write("account:{account_id}", "order:*"),
    "edit_article": Write("article:{article_id}"),
}

POLICIES = {"airline": AIRLINE, "retail": RETAIL, "synthetic": SYNTHETIC}

if __name__ == "__main__":
    for domain, policy in POLICIES.items():
        print(domain)
        for name, effect in policy.items():
            print(f"  {name:32}{effect!r}")
