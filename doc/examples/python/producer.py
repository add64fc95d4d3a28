"""producer.py ORDER_ID TOTAL: place an order and emit an event of it."""

import sys
from decimal import Decimal

import psycopg
from psycopg.types.json import Jsonb


def place_order(db, order_id, total):
    with db.transaction():
        db.execute("INSERT INTO orders (order_id, total) VALUES (%s, %s)", [order_id, total])
        return db.execute(
            "INSERT INTO sagaz.emit (saga_id, event_type, payload, aggregate_type)"
            " VALUES (%s, 'OrderPlaced', %s, 'order') RETURNING event_id",
            [order_id, Jsonb({"total": str(total)})],
        ).fetchone()[0]


if __name__ == "__main__":
    # a pooler that hands out connections by the transaction keeps no statements
    with psycopg.connect(autocommit=True, prepare_threshold=None) as connection:
        print(place_order(connection, sys.argv[1], Decimal(sys.argv[2])))
