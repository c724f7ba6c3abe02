import { once } from "node:events";
import http2 from "node:http2";
import { expect, onTestFinished, test } from "vitest";
import { useTestApp } from "../support/use-app.ts";

const app = useTestApp({ env: { REST_DOOR: "true" } });

test.each([
  ["/v1/chat/completions", "application/json", 413],
  ["/v1/chat/completions", "text/plain", 415],
  ["/v1/embeddings", "application/json", 404],
  ["/v1/models", "application/json", 405],
  ["/chat", "application/json", 413],
  ["/health", "application/json", 405],
])("a request that is refused before all of it is read ends its stream: %s of %s", async (path, type, status) => {
  const session = http2.connect(app.url);
  onTestFinished(() => session.destroy());
  // More of them than the window of a connection has room for, if they were kept.
  for (let call = 0; call < 8; call++) {
    const stream = session.request({ ":method": "POST", ":path": path, "content-type": type });
    const [answered, closed] = [once(stream, "response"), once(stream, "close")];
    stream.end(Buffer.alloc(2_000_000, " "));
    stream.resume();
    const [headers] = await answered;
    expect(headers).toMatchObject({ ":status": status });
    await closed;
    expect(stream.rstCode).toBe(http2.constants.NGHTTP2_NO_ERROR);
  }
});
