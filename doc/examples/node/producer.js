// node producer.js ORDER_ID TOTAL: place an order and emit an event of it.
'use strict';

const { Client } = require('pg');

async function placeOrder(db, orderId, total) {
  await db.query('BEGIN');
  try {
    await db.query('INSERT INTO orders (order_id, total) VALUES ($1, $2)', [orderId, total]);
    const { rows } = await db.query(
      `INSERT INTO sagaz.emit (saga_id, event_type, payload, aggregate_type)
       VALUES ($1, 'OrderPlaced', $2, 'order') RETURNING event_id`,
      [orderId, { total }]
    );
    await db.query('COMMIT');
    return rows[0].event_id;
  } catch (error) {
    await db.query('ROLLBACK');
    throw error;
  }
}

async function main([orderId, total]) {
  const db = new Client();
  await db.connect();
  try {
    console.log(await placeOrder(db, orderId, total));
  } finally {
    await db.end();
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
