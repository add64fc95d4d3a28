"""saga.py ORDER_ID CUSTOMER ITEM PIECES TOTAL: an order in steps, undone if one is refused.

Each step and its mark in the saga are one transaction.  Called again, after a
crash or at the same time, it goes on where the saga stands.
"""

import sys

import psycopg
from psycopg.types.json import Jsonb


class Refused(Exception):
    """The step is not possible; what was done before it is to be undone."""


def change(db, sql, order):
    if db.execute(sql, order).rowcount == 0:
        raise Refused("no such item or customer")


def reserve(db, order):
    change(db, "UPDATE stock SET pieces = pieces - %(pieces)s WHERE item = %(item)s", order)


def unreserve(db, order):
    change(db, "UPDATE stock SET pieces = pieces + %(pieces)s WHERE item = %(item)s", order)


def pay(db, order):
    change(db, "UPDATE accounts SET balance = balance - %(total)s WHERE customer = %(customer)s", order)


def refund(db, order):
    change(db, "UPDATE accounts SET balance = balance + %(total)s WHERE customer = %(customer)s", order)


def place(db, order):
    db.execute("INSERT INTO orders (order_id, total) VALUES (%(order_id)s, %(total)s)", order)
    db.execute(
        "SELECT sagaz.insert_event(%s, 'OrderPlaced', %s, 'order')",
        [order["order_id"], Jsonb({"total": order["total"]})],
    )


# each step and what undoes it; nothing comes after the last one that could fail
STEPS = {"reserve": (reserve, unreserve), "pay": (pay, refund), "place": (place, None)}


def mark(db, saga, step, status):
    """The version that the saga has once this commits."""
    return db.execute(
        "SELECT sagaz.update_step_state(%s, %s, %s)", [saga["saga_id"], step["name"], status]
    ).fetchone()[0]


def save(db, saga, status):
    """The whole saga, unless somebody changed it who should not have (SZ006)."""
    saga["status"] = status
    saga["version"] = db.execute(
        "SELECT sagaz.save_saga_state(%s, 'order', %s, %s, %s, expected_version => %s)",
        [saga["saga_id"], status, Jsonb(saga["steps"]), Jsonb(saga["context"]), saga["version"]],
    ).fetchone()[0]


def execute(db, saga):
    for step in saga["steps"]:
        if step["status"] == "completed":
            continue
        try:
            with db.transaction():
                version = mark(db, saga, step, "completed")
                STEPS[step["name"]][0](db, saga["context"])
        except (Refused, psycopg.IntegrityError) as error:
            step.update(status="failed", error=str(error))
            save(db, saga, "compensating")
            return
        step["status"] = "completed"
        saga["version"] = version
    save(db, saga, "completed")


def compensate(db, saga):
    for step in reversed(saga["steps"]):
        if step["status"] == "completed":
            with db.transaction():
                version = mark(db, saga, step, "compensated")
                STEPS[step["name"]][1](db, saga["context"])
            step["status"] = "compensated"
            saga["version"] = version
    save(db, saga, "rolled_back")


def run(db, order):
    # one program at a time works on a saga; the lock goes with the connection
    db.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [order["order_id"]])
    saga = db.execute("SELECT sagaz.load_saga_state(%s)", [order["order_id"]]).fetchone()[0]
    if saga is None:
        steps = [{"name": name, "status": "pending"} for name in STEPS]
        saga = {"saga_id": order["order_id"], "steps": steps, "context": order, "version": 0}
        save(db, saga, "executing")
    if saga["status"] == "executing":
        execute(db, saga)
    if saga["status"] == "compensating":
        compensate(db, saga)
    return saga["status"]


if __name__ == "__main__":
    order = dict(zip(["order_id", "customer", "item", "pieces", "total"], sys.argv[1:]))
    order["pieces"] = int(order["pieces"])
    with psycopg.connect(autocommit=True) as connection:
        print(run(connection, order))
