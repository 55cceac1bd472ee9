import com.launchdarkly.sdk.server.subsystems.DataStoreTypes.DataKind;
import com.launchdarkly.sdk.server.subsystems.DataStoreTypes.FullDataSet;
import com.launchdarkly.sdk.server.subsystems.DataStoreTypes.KeyedItems;
import com.launchdarkly.sdk.server.subsystems.DataStoreTypes.SerializedItemDescriptor;
import com.launchdarkly.sdk.server.subsystems.PersistentDataStore;
import java.util.HashMap;
import java.util.Map;
import redis.clients.jedis.JedisPooled;

/**
 * Reads what lies in Redis by the SDK's own interface for stores. It stands in for LaunchDarkly's Redis store, whose
 * releases for this SDK could not be had; it never writes.
 */
final class RedisStore implements PersistentDataStore {
  private final JedisPooled redis;
  private final String prefix;

  RedisStore(String url, String prefix) {
    this.redis = new JedisPooled(url);
    this.prefix = prefix;
  }

  @Override
  public SerializedItemDescriptor get(DataKind kind, String key) {
    String json = redis.hget(hash(kind), key);
    return json == null ? null : item(json);
  }

  @Override
  public KeyedItems<SerializedItemDescriptor> getAll(DataKind kind) {
    Map<String, SerializedItemDescriptor> items = new HashMap<>();
    redis.hgetAll(hash(kind)).forEach((key, json) -> items.put(key, item(json)));
    return new KeyedItems<>(items.entrySet());
  }

  @Override
  public boolean isInitialized() {
    return redis.exists(prefix + ":$inited");
  }

  @Override
  public boolean isStoreAvailable() {
    return "PONG".equals(redis.ping());
  }

  @Override
  public void init(FullDataSet<SerializedItemDescriptor> data) {
    throw new UnsupportedOperationException("the store is somebody else's to write");
  }

  @Override
  public boolean upsert(DataKind kind, String key, SerializedItemDescriptor item) {
    throw new UnsupportedOperationException("the store is somebody else's to write");
  }

  @Override
  public void close() {
    redis.close();
  }

  private String hash(DataKind kind) {
    return prefix + ":" + kind.getName();
  }

  // Version and deletion are parts of the JSON, which the SDK parses.
  private static SerializedItemDescriptor item(String json) {
    return new SerializedItemDescriptor(0, false, json);
  }
}
