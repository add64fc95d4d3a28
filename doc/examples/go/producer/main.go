// producer ORDER_ID TOTAL: place an order and emit an event of it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v4"
)

func placeOrder(ctx context.Context, db *pgx.Conn, orderID, total string) (eventID string, err error) {
	payload, err := json.Marshal(map[string]string{"total": total})
	if err != nil {
		return "", err
	}
	tx, err := db.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer tx.Rollback(ctx) // does nothing after the commit

	_, err = tx.Exec(ctx, "INSERT INTO orders (order_id, total) VALUES ($1, $2::text::numeric)", orderID, total)
	if err != nil {
		return "", err
	}
	err = tx.QueryRow(ctx, `
		INSERT INTO sagaz.emit (saga_id, event_type, payload, aggregate_type)
		VALUES ($1, 'OrderPlaced', $2, 'order') RETURNING event_id::text`,
		orderID, string(payload)).Scan(&eventID)
	if err != nil {
		return "", err
	}
	return eventID, tx.Commit(ctx)
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: producer ORDER_ID TOTAL")
	}
	ctx := context.Background()
	db, err := pgx.Connect(ctx, "") // PGHOST, PGPORT, PGUSER, PGDATABASE, ...
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close(ctx)

	eventID, err := placeOrder(ctx, db, os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(eventID)
}
