import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { describe, expect, test, vi } from "vitest";
import * as v1 from "../../gen/grpc/reflection/v1/reflection_pb.js";
import * as v1alpha from "../../gen/grpc/reflection/v1alpha/reflection_pb.js";
import { grpcurl } from "../support/grpcurl.ts";
import { startTestApp } from "../support/parley-app.ts";
import { useTestApp } from "../support/use-app.ts";
import { type Wire, wires } from "./wires.ts";

const app = useTestApp();

const SERVICES = [
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
  "grpc.reflection.v1alpha.ServerReflection",
  "parley.chat.v1.ChatService",
  "parley.chat.v1.SessionService",
];

describe("with grpcurl and no proto file", () => {
  test("list names the services that are served, and no others", async () => {
    const { stdout } = await grpcurl(app.url, [], "list");
    expect(stdout.trim().split("\n")).toEqual(SERVICES);
  });

  test.each(SERVICES)("%s is described with its RPCs", async (service) => {
    const { exitCode, stdout } = await grpcurl(app.url, [], "describe", service);
    expect(exitCode).toBe(0);
    expect(stdout).toContain(`${service} is a service:`);
    expect(stdout).toMatch(/ {2}rpc \w+ \(/);
  });

  test.each(["parley.chat.v1.StreamChatResponse", "google.rpc.ErrorInfo", "parley.chat.v1.TurnCursor"])(
    "%s is described with its fields",
    async (message) => {
      const { exitCode, stdout } = await grpcurl(app.url, [], "describe", message);
      expect(exitCode).toBe(0);
      expect(stdout).toContain(`${message} is a message:`);
    },
  );

  test("a turn is streamed", async () => {
    const data = '{"message":"hello","user_id":"u1"}';
    const { exitCode, stdout } = await grpcurl(app.url, ["-d", data], "parley.chat.v1.ChatService/StreamChat");
    expect(exitCode).toBe(0);
    const events = JSON.parse(`[${stdout.trim().replaceAll("}\n{", "},\n{")}]`) as Record<string, unknown>[];
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => String(index + 1)));
    expect(Object.keys(events[0] ?? {})).toEqual(["sequence", "turnStarted"]);
    expect(events.at(-1)).toMatchObject({ turnCompleted: { finishReason: "FINISH_REASON_STOP" } });
  });

  test("an error is printed with its details decoded", async () => {
    const data = '{"message":"","user_id":"u1"}';
    const { exitCode, stderr } = await grpcurl(app.url, ["-d", data], "parley.chat.v1.ChatService/Chat");
    expect(exitCode).toBe(64 + 3);
    expect(stderr).toContain("Code: InvalidArgument");
    expect(stderr).toMatch(
      /"@type": "type\.googleapis\.com\/google\.rpc\.ErrorInfo",\s+"domain": "parley",\s+"reason": "INVALID_FIELD"/,
    );
    expect(stderr).toMatch(/"field": "message",\s+"description": "must have 1 to 10,000 characters"/);
    expect(stderr).not.toContain("not recognized");
  });

  test("the cursor of a turn whose replica leaves is printed decoded", async () => {
    const leaving = await startTestApp({ model: "sim-stall", env: { DRAIN_MS: "100" } });
    try {
      const data = '{"message":"hello","user_id":"u1"}';
      const call = grpcurl(leaving.url, ["-d", data], "parley.chat.v1.ChatService/StreamChat");
      await vi.waitFor(() => expect(leaving.simulated.callCount).toBe(1), { timeout: 20_000 });
      await leaving.close();
      const { stderr } = await call;
      expect(stderr).toContain("Code: Unavailable");
      expect(stderr).toMatch(/parley\.chat\.v1\.TurnCursor",\s+"lastSequence": "2",\s+"turnId": "[\w.-]+"/);
      expect(stderr).toMatch(/google\.rpc\.RetryInfo",\s+"retryDelay": "1s"/);
    } finally {
      await leaving.close();
    }
  });

  test("health is asked", async () => {
    const { stdout } = await grpcurl(app.url, [], "grpc.health.v1.Health/Check");
    expect(JSON.parse(stdout)).toEqual({ status: "SERVING" });
  });
});

const versions = {
  v1: v1.ServerReflection,
  v1alpha: v1alpha.ServerReflection as unknown as typeof v1.ServerReflection,
};

describe.each(Object.entries(versions))("%s", (_, service) => {
  type Question = v1.ServerReflectionRequest["messageRequest"];

  /** The answers to questions on one stream, in their order. */
  async function ask(...questions: Question[]) {
    const transport = (wires.find(({ protocol }) => protocol === "grpc") as Wire).transport(app.url);
    const requests = (async function* () {
      for (const messageRequest of questions) yield { host: "localhost", messageRequest };
    })();
    const answers: v1.ServerReflectionResponse[] = [];
    for await (const answer of createClient(service, transport).serverReflectionInfo(requests)) answers.push(answer);
    return answers;
  }

  const namesOf = ({ messageResponse }: v1.ServerReflectionResponse): string[] =>
    messageResponse.case === "fileDescriptorResponse"
      ? messageResponse.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name)
      : [];

  test("answers many questions on one stream, and what there is not is an answer too", async () => {
    const [list, missing, file, symbol] = await ask(
      { case: "listServices", value: "" },
      { case: "fileByFilename", value: "nobody.proto" },
      { case: "fileByFilename", value: "google/rpc/error_details.proto" },
      { case: "fileContainingSymbol", value: "parley.chat.v1.ChatService.Chat" },
    );
    expect(list?.messageResponse.value).toMatchObject({ service: SERVICES.map((name) => ({ name })) });
    expect(list?.validHost).toBe("localhost");
    expect(missing?.messageResponse).toMatchObject({ case: "errorResponse", value: { errorCode: 5 } });
    expect(namesOf(file as v1.ServerReflectionResponse)).toEqual([
      "google/rpc/error_details.proto",
      "google/protobuf/duration.proto",
    ]);
    expect(namesOf(symbol as v1.ServerReflectionResponse)[0]).toBe("parley/chat/v1/chat_service.proto");
  });

  test.each([
    "parley.chat.v1.TurnCursor",
    "parley.chat.v1.TurnCursor.turn_id",
    "parley.chat.v1.StreamChatResponse.event",
    "parley.chat.v1.FINISH_REASON_STOP",
    "google.rpc.BadRequest.FieldViolation",
  ])("finds the file of %s", async (value) => {
    const [answer] = await ask({ case: "fileContainingSymbol", value });
    expect(namesOf(answer as v1.ServerReflectionResponse)).not.toEqual([]);
  });

  test("extensions: there are none, which is an answer; of what is no message, NOT_FOUND", async () => {
    const [none, unknown, question] = await ask(
      { case: "allExtensionNumbersOfType", value: "parley.chat.v1.Session" },
      { case: "allExtensionNumbersOfType", value: "parley.chat.v1.Nobody" },
      { case: undefined },
    );
    expect(none?.messageResponse).toMatchObject({
      case: "allExtensionNumbersResponse",
      value: { baseTypeName: "parley.chat.v1.Session", extensionNumber: [] },
    });
    expect(unknown?.messageResponse).toMatchObject({ case: "errorResponse", value: { errorCode: 5 } });
    expect(question?.messageResponse).toMatchObject({ case: "errorResponse", value: { errorCode: 3 } });
  });
});
