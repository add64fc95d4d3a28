// node consumer.js: write an invoice for each order that is placed, once.
'use strict';

const os = require('os');
const { Client } = require('pg');

const group = 'invoices';
const worker = `${os.hostname()}-${process.pid}`;

// In the transaction of the work an event is noted, so that it works once.
async function handle(db, event) {
  const { rows } = await db.query(
    'SELECT sagaz.check_and_insert_inbox($1, $2, $3, $4, $5) AS seen',
    [event.event_id, group, event.aggregate_type, event.event_type, JSON.stringify(event.payload)]
  );
  if (!rows[0].seen && event.event_type === 'OrderPlaced') {
    await db.query('INSERT INTO invoices (order_id, total) VALUES ($1, $2)',
      [event.saga_id, event.payload.total]);
  }
}

async function inTransaction(db, work) {
  await db.query('BEGIN');
  try {
    await work();
    await db.query('COMMIT');
  } catch (error) {
    await db.query('ROLLBACK');
    throw error;
  }
}

// Wait for events, claim a batch, and say of each event what became of it.
async function consume(db) {
  await db.query("CALL sagaz.wait_for_events('10 s', $1)", [group]);
  const { rows: events } = await db.query(
    'SELECT * FROM sagaz.claim_batch($1, 100, consumer_group => $2)', [worker, group]);
  const sent = [];
  const failed = [];
  for (const event of events) {
    try {
      await inTransaction(db, () => handle(db, event));
      sent.push(event.event_id);
    } catch (error) {
      failed.push([event.event_id, error.message]);
    }
  }
  if (sent.length > 0) {
    await db.query('SELECT sagaz.mark_sent($1, $2, $3)', [sent, worker, group]);
  }
  for (const [eventId, message] of failed) {
    await db.query('SELECT sagaz.mark_failed($1, $2, $3, $4)', [[eventId], worker, message, group]);
  }
}

async function main() {
  const db = new Client();
  await db.connect();
  for (;;) {
    await consume(db);
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
