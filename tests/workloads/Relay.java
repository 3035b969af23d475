import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.concurrent.Executors;

/** A service with a pool of threads. `java Relay.java PORT NEXT_PORT`: asks the next service for the same path, then answers. */
public class Relay {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        String next = "http://127.0.0.1:" + arguments[1];
        // Above 200 idle connections it would close what was just answered.
        System.setProperty("sun.net.httpserver.maxIdleConnections", "2000");
        InetSocketAddress address = new InetSocketAddress(InetAddress.getByName("127.0.0.1"), port);
        HttpServer server = HttpServer.create(address, 128);
        server.setExecutor(Executors.newFixedThreadPool(32));
        server.createContext("/", exchange -> relay(exchange, next));
        server.start();
    }

    static void relay(HttpExchange exchange, String next) throws IOException {
        URI uri = URI.create(next + exchange.getRequestURI());
        HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
        byte[] body = connection.getInputStream().readAllBytes();
        exchange.sendResponseHeaders(connection.getResponseCode(), body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}
