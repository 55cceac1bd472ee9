import com.launchdarkly.logging.LDLogLevel;
import com.launchdarkly.logging.Logs;
import com.launchdarkly.sdk.ArrayBuilder;
import com.launchdarkly.sdk.EvaluationDetail;
import com.launchdarkly.sdk.EvaluationReason;
import com.launchdarkly.sdk.LDContext;
import com.launchdarkly.sdk.LDValue;
import com.launchdarkly.sdk.ObjectBuilder;
import com.launchdarkly.sdk.json.JsonSerialization;
import com.launchdarkly.sdk.server.Components;
import com.launchdarkly.sdk.server.FeatureFlagsState;
import com.launchdarkly.sdk.server.LDClient;
import com.launchdarkly.sdk.server.LDConfig;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/** Evaluates the cases of a file with the LaunchDarkly SDK for Java; see ../README.md for the interface. */
public final class Reader {
  private static final Duration INITIALIZATION_TIME = Duration.ofSeconds(10);
  private static final String INTERACTIVE = "--interactive";

  private Reader() {}

  public static void main(String[] arguments) throws Exception {
    Map<String, String> options = options(arguments);
    LDValue fixture = LDValue.parse(Files.readString(Path.of(options.get("--cases"))));
    PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    boolean interactive = options.containsKey(INTERACTIVE);
    try (LDClient client = client(options)) {
      while (!interactive || input.readLine() != null) {
        output.println(evaluation(client, fixture).toJsonString());
        if (!interactive) {
          return;
        }
      }
    }
  }

  private static Map<String, String> options(String[] arguments) {
    Map<String, String> options = new HashMap<>();
    for (int index = 0; index < arguments.length; index++) {
      String name = arguments[index];
      options.put(name, name.equals(INTERACTIVE) ? "" : arguments[++index]);
    }
    return options;
  }

  private static LDClient client(Map<String, String> options) {
    LDConfig.Builder config =
        new LDConfig.Builder()
            .events(Components.noEvents())
            .diagnosticOptOut(true)
            .startWait(INITIALIZATION_TIME)
            .logging(Components.logging(Logs.toStream(System.err)).level(LDLogLevel.WARN));
    if ("daemon".equals(options.get("--mode"))) {
      String url = options.get("--redis-url");
      String prefix = options.get("--prefix");
      config
          .dataStore(Components.persistentDataStore(context -> new RedisStore(url, prefix)).noCaching())
          .dataSource(Components.externalUpdatesOnly());
    } else {
      config.serviceEndpoints(
          Components.serviceEndpoints()
              .streaming(options.get("--stream"))
              .polling(options.get("--base"))
              .events(options.get("--base")));
    }
    return new LDClient(options.getOrDefault("--sdk-key", "sdk-reader"), config.build());
  }

  private static LDValue evaluation(LDClient client, LDValue fixture) throws Exception {
    FeatureFlagsState state = client.allFlagsState(context(fixture.get("allFlagsContext")));
    ObjectBuilder values = LDValue.buildObject();
    state.toValuesMap().forEach(values::put);
    ArrayBuilder cases = LDValue.buildArray();
    for (LDValue one : fixture.get("cases").values()) {
      cases.add(evaluated(client, one));
    }
    LDValue allFlags =
        LDValue.buildObject().put("valid", state.isValid()).put("values", values.build()).build();
    return LDValue.buildObject().put("cases", cases.build()).put("allFlags", allFlags).build();
  }

  private static LDValue evaluated(LDClient client, LDValue one) throws Exception {
    String flag = one.get("flag").stringValue();
    EvaluationDetail<LDValue> detail =
        client.jsonValueVariationDetail(flag, context(one.get("context")), one.get("default"));
    EvaluationReason reason = detail.getReason();
    boolean failed = reason.getKind() == EvaluationReason.Kind.ERROR;
    return LDValue.buildObject()
        .put("flag", flag)
        .put("value", detail.getValue())
        .put("variation", detail.isDefaultValue() ? LDValue.ofNull() : LDValue.of(detail.getVariationIndex()))
        .put("reason", failed ? "ERROR:" + reason.getErrorKind() : reason.getKind().toString())
        .build();
  }

  private static LDContext context(LDValue json) throws Exception {
    return JsonSerialization.deserialize(json.toJsonString(), LDContext.class);
  }
}
