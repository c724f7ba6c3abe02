import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";

export interface ParleyClients {
  readonly chat: Client<typeof ChatService>;
  readonly sessions: Client<typeof SessionService>;
}

/** Clients of the service that this page came from. */
export function createParleyClients(): ParleyClients {
  const transport = createConnectTransport({ baseUrl: window.location.origin });
  return { chat: createClient(ChatService, transport), sessions: createClient(SessionService, transport) };
}
