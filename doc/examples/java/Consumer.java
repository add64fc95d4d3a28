import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** Consumer: write an invoice for each order that is placed, once. */
public class Consumer {
    static final String GROUP = "invoices";
    static final String WORKER = "java-" + ProcessHandle.current().pid();

    record Event(UUID id, String sagaId, String aggregateType, String eventType, String payload) {
    }

    /** A statement with its parameters. */
    static PreparedStatement statement(Connection db, String sql, Object... values)
            throws SQLException {
        PreparedStatement statement = db.prepareStatement(sql);
        for (int i = 0; i < values.length; i++) {
            statement.setObject(i + 1, values[i]);
        }
        return statement;
    }

    static void execute(Connection db, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = statement(db, sql, values)) {
            statement.execute();
        }
    }

    /** In the transaction of the work an event is noted, so that it works once. */
    static void handle(Connection db, Event event) throws SQLException {
        boolean seen;
        try (PreparedStatement inbox = statement(db,
                "SELECT sagaz.check_and_insert_inbox(?, ?, ?, ?, ?::jsonb)", event.id().toString(),
                GROUP, event.aggregateType(), event.eventType(), event.payload());
            ResultSet result = inbox.executeQuery()) {
            result.next();
            seen = result.getBoolean(1);
        }
        if (!seen && event.eventType().equals("OrderPlaced")) {
            execute(db, "INSERT INTO invoices (order_id, total)"
                + " VALUES (?, (?::jsonb ->> 'total')::numeric)", event.sagaId(), event.payload());
        }
    }

    static List<Event> claim(Connection db) throws SQLException {
        List<Event> events = new ArrayList<>();
        try (PreparedStatement claim = statement(db,
                "SELECT event_id, saga_id, aggregate_type, event_type, payload"
                + " FROM sagaz.claim_batch(?, 100, consumer_group => ?)", WORKER, GROUP);
            ResultSet row = claim.executeQuery()) {
            while (row.next()) {
                events.add(new Event(row.getObject(1, UUID.class), row.getString(2),
                    row.getString(3), row.getString(4), row.getString(5)));
            }
        }
        return events;
    }

    /** Wait for events, claim a batch, and say of each event what became of it. */
    static void consume(Connection db) throws SQLException {
        execute(db, "CALL sagaz.wait_for_events('10 s', ?)", GROUP);
        List<UUID> sent = new ArrayList<>();
        Map<UUID, String> failed = new LinkedHashMap<>();
        for (Event event : claim(db)) {
            db.setAutoCommit(false);
            try {
                handle(db, event);
                db.commit();
                sent.add(event.id());
            } catch (SQLException error) {
                db.rollback();
                failed.put(event.id(), error.getMessage());
            } finally {
                db.setAutoCommit(true);
            }
        }
        if (!sent.isEmpty()) {
            execute(db, "SELECT sagaz.mark_sent(?, ?, ?)",
                db.createArrayOf("uuid", sent.toArray()), WORKER, GROUP);
        }
        for (Map.Entry<UUID, String> failure : failed.entrySet()) {
            execute(db, "SELECT sagaz.mark_failed(?, ?, ?, ?)",
                db.createArrayOf("uuid", new Object[] {failure.getKey()}), WORKER,
                failure.getValue(), GROUP);
        }
    }

    static String env(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    public static void main(String[] args) throws SQLException {
        String url = "jdbc:postgresql://" + env("PGHOST", "localhost") + ":" + env("PGPORT", "5432")
            + "/" + env("PGDATABASE", "postgres");
        try (Connection db = DriverManager.getConnection(
                url, env("PGUSER", System.getProperty("user.name")), System.getenv("PGPASSWORD"))) {
            while (true) {
                consume(db);
            }
        }
    }
}
