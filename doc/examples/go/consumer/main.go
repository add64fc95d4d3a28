// consumer: write an invoice for each order that is placed, once.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v4"
)

const group = "invoices"

type event struct {
	id, sagaID, aggregateType, eventType, payload string
}

// In the transaction of the work an event is noted, so that it works once.
func handle(ctx context.Context, db *pgx.Conn, e event) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // does nothing after the commit

	var seen bool
	err = tx.QueryRow(ctx, "SELECT sagaz.check_and_insert_inbox($1, $2, $3, $4, $5)",
		e.id, group, e.aggregateType, e.eventType, e.payload).Scan(&seen)
	if err != nil {
		return err
	}
	if !seen && e.eventType == "OrderPlaced" {
		var order struct{ Total *string }
		if err := json.Unmarshal([]byte(e.payload), &order); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "INSERT INTO invoices (order_id, total) VALUES ($1, $2::text::numeric)",
			e.sagaID, order.Total)
		if err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

func claim(ctx context.Context, db *pgx.Conn, worker string) ([]event, error) {
	rows, err := db.Query(ctx, `
		SELECT event_id::text, saga_id, aggregate_type, event_type, payload::text
		FROM sagaz.claim_batch($1, 100, consumer_group => $2)`, worker, group)
	if err != nil {
		return nil, err
	}
	defer rows.Close()

	var events []event
	for rows.Next() {
		var e event
		if err := rows.Scan(&e.id, &e.sagaID, &e.aggregateType, &e.eventType, &e.payload); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, rows.Err()
}

// Wait for events, claim a batch, and say of each event what became of it.
func consume(ctx context.Context, db *pgx.Conn, worker string) error {
	if _, err := db.Exec(ctx, "CALL sagaz.wait_for_events('10 s', $1)", group); err != nil {
		return err
	}
	events, err := claim(ctx, db, worker)
	if err != nil {
		return err
	}
	var sent []string
	failed := map[string]error{}
	for _, e := range events {
		if err := handle(ctx, db, e); err != nil {
			failed[e.id] = err
		} else {
			sent = append(sent, e.id)
		}
	}
	if len(sent) > 0 {
		if _, err := db.Exec(ctx, "SELECT sagaz.mark_sent($1::text[]::uuid[], $2, $3)", sent, worker, group); err != nil {
			return err
		}
	}
	for id, cause := range failed {
		_, err := db.Exec(ctx, "SELECT sagaz.mark_failed($1::text[]::uuid[], $2, $3, $4)",
			[]string{id}, worker, cause.Error(), group)
		if err != nil {
			return err
		}
	}
	return nil
}

func main() {
	ctx := context.Background()
	db, err := pgx.Connect(ctx, "") // PGHOST, PGPORT, PGUSER, PGDATABASE, ...
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close(ctx)

	host, _ := os.Hostname()
	worker := fmt.Sprintf("%s-%d", host, os.Getpid())
	for {
		if err := consume(ctx, db, worker); err != nil {
			log.Fatal(err)
		}
	}
}
