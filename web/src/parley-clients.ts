import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";

export interface ParleyClients {
  readonly chat: Client<typeof ChatService>;
  readonly sessions: Client<typeof SessionService>;
}

/** UsageService at the origin that this page came from, where it is led to the sidecar. Ledgers are long: binary. */
export function createUsageClient(): Client<typeof UsageService> {
  const transport = createConnectTransport({ baseUrl: window.location.origin, useBinaryFormat: true });
  return createClient(UsageService, transport);
}

/** Clients of the service that this page came from. */
export function createParleyClients(): ParleyClients {
  const transport = createConnectTransport({ baseUrl: window.location.origin });
  return { chat: createClient(ChatService, transport), sessions: createClient(SessionService, transport) };
}
