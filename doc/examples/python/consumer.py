"""consumer.py: write an invoice for each order that is placed, once."""

import os
import socket

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

GROUP = "invoices"
WORKER = f"{socket.gethostname()}-{os.getpid()}"


def handle(db, event):
    """In the transaction of the work an event is noted, so that it works once."""
    seen = db.execute(
        "SELECT sagaz.check_and_insert_inbox(%s, %s, %s, %s, %s)",
        [str(event.event_id), GROUP, event.aggregate_type, event.event_type, Jsonb(event.payload)],
    ).fetchone()[0]
    if not seen and event.event_type == "OrderPlaced":
        db.execute(
            "INSERT INTO invoices (order_id, total) VALUES (%s, %s)",
            [event.saga_id, event.payload["total"]],
        )


def consume(db):
    """Wait for events, claim a batch, and say of each event what became of it."""
    db.execute("CALL sagaz.wait_for_events('10 s', %s)", [GROUP])
    events = db.execute(
        "SELECT * FROM sagaz.claim_batch(%s, 100, consumer_group => %s)", [WORKER, GROUP]
    ).fetchall()
    sent, failed = [], []
    for event in events:
        try:
            with db.transaction():
                handle(db, event)
            sent.append(event.event_id)
        except Exception as error:
            failed.append((event.event_id, f"{type(error).__name__}: {error}"))
    if sent:
        db.execute("SELECT sagaz.mark_sent(%s, %s, %s)", [sent, WORKER, GROUP])
    for event_id, error in failed:
        db.execute("SELECT sagaz.mark_failed(%s, %s, %s, %s)", [[event_id], WORKER, error, GROUP])


if __name__ == "__main__":
    # a pooler that hands out connections by the transaction keeps no statements
    with psycopg.connect(
        autocommit=True, prepare_threshold=None, row_factory=namedtuple_row
    ) as connection:
        while True:
            consume(connection)
