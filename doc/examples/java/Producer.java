import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

/** Producer ORDER_ID TOTAL: place an order and emit an event of it. */
public class Producer {
    static String placeOrder(Connection db, String orderId, BigDecimal total) throws SQLException {
        db.setAutoCommit(false);
        try (PreparedStatement order = db.prepareStatement(
                "INSERT INTO orders (order_id, total) VALUES (?, ?)");
            PreparedStatement event = db.prepareStatement(
                "INSERT INTO sagaz.emit (saga_id, event_type, payload, aggregate_type)"
                + " VALUES (?, 'OrderPlaced', jsonb_build_object('total', ?), 'order')"
                + " RETURNING event_id")) {
            order.setString(1, orderId);
            order.setBigDecimal(2, total);
            order.executeUpdate();

            event.setString(1, orderId);
            event.setBigDecimal(2, total);
            try (ResultSet result = event.executeQuery()) {
                result.next();
                String eventId = result.getString(1);
                db.commit();
                return eventId;
            }
        } catch (SQLException error) {
            db.rollback();
            throw error;
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
            System.out.println(placeOrder(db, args[0], new BigDecimal(args[1])));
        }
    }
}
