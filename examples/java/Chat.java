import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import com.parley.chat.v1.ChatRequest;
import com.parley.chat.v1.ChatServiceGrpc;
import com.parley.chat.v1.ChatServiceGrpc.ChatServiceBlockingStub;
import com.parley.chat.v1.FinishReason;
import com.parley.chat.v1.ResumeTurnRequest;
import com.parley.chat.v1.StreamChatRequest;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/** Five steps with Parley through grpc-java. Each prints a line of JSON: what was seen. */
public final class Chat {
  private static final String MESSAGE = "Grüße aus Köln 🦜";

  /** A call without a deadline can wait for ever. */
  private static final long TIMEOUT_S = 60;

  /** More turns than a service lets one user begin, which is 100 in an hour by default. */
  private static final int MANY_TURNS = 200;

  private static final Gson GSON = new GsonBuilder().disableHtmlEscaping().create();

  private final ChatServiceBlockingStub stub;
  private final String user = "example-" + UUID.randomUUID();

  private Chat(ManagedChannel channel) {
    stub = ChatServiceGrpc.newBlockingStub(channel);
  }

  public static void main(String[] args) throws Exception {
    String url = System.getenv().getOrDefault("PARLEY_URL", "http://localhost:8080");
    ManagedChannel channel =
        Grpc.newChannelBuilder(url.replaceFirst("^http://", ""), InsecureChannelCredentials.create()).build();
    try {
      Chat chat = new Chat(channel);
      chat.chat();
      chat.stream();
      chat.dropAndResume();
      chat.retry();
      chat.refusal();
    } finally {
      channel.shutdown().awaitTermination(TIMEOUT_S, TimeUnit.SECONDS);
    }
  }

  private void chat() {
    var reply = service().chat(chatRequest().build());
    tell(
        "chat",
        saw()
            .with("response", reply.getResponse())
            .with("finish_reason", reply.getFinishReason().name())
            .with("total_tokens", reply.getTokenUsage().getTotalTokens())
            .with("cost_micro_usd", reply.getCostMicroUsd()));
  }

  private void stream() {
    List<String> kinds = new ArrayList<>();
    var text = new StringBuilder();
    var finishReason = FinishReason.FINISH_REASON_UNSPECIFIED;
    long lastSequence = 0;
    boolean withoutGap = true;
    var events = service().streamChat(streamRequest());
    while (events.hasNext()) {
      var event = events.next();
      // Events that are in no log have no number. A kind that this program does not know is not set: it goes on.
      if (event.getSequence() == 0) continue;
      withoutGap &= event.getSequence() == lastSequence + 1;
      lastSequence = event.getSequence();
      String kind = event.getEventCase().name().toLowerCase(Locale.ROOT);
      if (!kinds.contains(kind)) kinds.add(kind);
      text.append(event.getTextDelta().getText());
      if (event.hasTurnCompleted()) finishReason = event.getTurnCompleted().getFinishReason();
    }
    tell(
        "stream",
        saw()
            .with("kinds", kinds)
            .with("without_gap", withoutGap)
            .with("text", text.toString())
            .with("finish_reason", finishReason.name()));
  }

  private void dropAndResume() throws Exception {
    String turnId = "";
    var text = new StringBuilder();
    long lastSequence = 0;
    // What is called within the context ends with it.
    try (var call = Context.current().withCancellation()) {
      var events = call.call(() -> service().streamChat(streamRequest()));
      while (text.isEmpty() && events.hasNext()) {
        var event = events.next();
        if (event.hasTurnStarted()) turnId = event.getTurnStarted().getTurnId();
        lastSequence = Math.max(lastSequence, event.getSequence());
        text.append(event.getTextDelta().getText());
      }
    }

    // The turn goes on without its call. Any replica, and any time later, would do as well.
    long droppedAfter = lastSequence;
    boolean withoutGap = true;
    var finishReason = FinishReason.FINISH_REASON_UNSPECIFIED;
    var request = ResumeTurnRequest.newBuilder().setTurnId(turnId).setAfterSequence(droppedAfter).build();
    var rest = service().resumeTurn(request);
    while (rest.hasNext()) {
      var event = rest.next();
      if (event.getSequence() == 0) continue;
      withoutGap &= event.getSequence() == lastSequence + 1;
      lastSequence = event.getSequence();
      text.append(event.getTextDelta().getText());
      if (event.hasTurnCompleted()) finishReason = event.getTurnCompleted().getFinishReason();
    }
    tell(
        "resume",
        saw()
            .with("dropped_after", droppedAfter)
            .with("last_sequence", lastSequence)
            .with("without_gap", withoutGap)
            .with("text", text.toString())
            .with("finish_reason", finishReason.name()));
  }

  private void retry() {
    var request = chatRequest().setIdempotencyKey(UUID.randomUUID().toString()).build();
    var first = service().chat(request);
    // As if the first reply had been lost: no model is called again, and nothing is paid for again.
    var again = service().chat(request);
    tell(
        "retry",
        saw()
            .with("same_turn", again.getTurnId().equals(first.getTurnId()))
            .with("response", again.getResponse()));
  }

  private void refusal() throws InvalidProtocolBufferException {
    for (int admitted = 0; admitted < MANY_TURNS; admitted++) {
      try {
        service().chat(chatRequest().build());
      } catch (StatusRuntimeException refused) {
        var saw = saw().with("code", refused.getStatus().getCode().name()).with("admitted", admitted);
        var status = StatusProto.fromThrowable(refused);
        for (Any detail : status == null ? List.<Any>of() : status.getDetailsList()) {
          if (detail.is(ErrorInfo.class)) {
            saw.with("reason", detail.unpack(ErrorInfo.class).getReason());
          } else if (detail.is(QuotaFailure.class)) {
            var violations = detail.unpack(QuotaFailure.class).getViolationsList();
            saw.with("quota", violations.stream().map(QuotaFailure.Violation::getDescription).toList());
          } else if (detail.is(RetryInfo.class)) {
            saw.with("retry_after_s", detail.unpack(RetryInfo.class).getRetryDelay().getSeconds());
          }
        }
        tell("refusal", saw);
        return;
      }
    }
    throw new IllegalStateException("was never refused");
  }

  private ChatServiceBlockingStub service() {
    return stub.withDeadlineAfter(TIMEOUT_S, TimeUnit.SECONDS);
  }

  private ChatRequest.Builder chatRequest() {
    return ChatRequest.newBuilder().setMessage(MESSAGE).setUserId(user);
  }

  private StreamChatRequest streamRequest() {
    return StreamChatRequest.newBuilder().setMessage(MESSAGE).setUserId(user).build();
  }

  /** What a step saw, in the order in which it is told. */
  private static final class Saw extends LinkedHashMap<String, Object> {
    Saw with(String name, Object value) {
      put(name, value);
      return this;
    }
  }

  private static Saw saw() {
    return new Saw();
  }

  private static void tell(String step, Saw saw) {
    Map<String, Object> line = new LinkedHashMap<>();
    line.put("client", "grpc-java");
    line.put("step", step);
    line.put("saw", saw);
    new PrintStream(System.out, true, StandardCharsets.UTF_8).println(GSON.toJson(line));
  }
}
