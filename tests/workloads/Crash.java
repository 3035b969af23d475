import java.lang.reflect.Field;

/**
 * `java Crash.java write`: writes to address 0, the JVM reports SIGSEGV and ends by SIGABRT. `java Crash.java throw`: an
 * exception that nobody catches: exit code 1. `java Crash.java caught`: null reads that the JVM handles as exceptions,
 * 200,000 times, so that compiled code meets them by SIGSEGV: exit code 0.
 */
public class Crash {
    static int length(String text) {
        return text.length();
    }

    static void catchAll() {
        String[] texts = {"keel", "hull"};
        int caught = 0;
        for (int turn = 0; turn < 200_000; turn++) {
            caught += length(texts[turn & 1]);
        }
        for (int turn = 0; turn < 3; turn++) {
            try {
                length(null);
            } catch (NullPointerException expected) {
                caught++;
            }
        }
        System.exit(caught > 0 ? 0 : 3);
    }

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "write" -> {
                Field field = Class.forName("sun.misc.Unsafe").getDeclaredField("theUnsafe");
                field.setAccessible(true);
                ((sun.misc.Unsafe) field.get(null)).putAddress(0, 1);
            }
            case "caught" -> catchAll();
            default -> throw new IllegalStateException("the keel is gone");
        }
    }
}
