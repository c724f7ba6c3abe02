import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { createParley, type Parley } from "../../client/client.ts";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";

/** UsageService at the origin that this page came from, where it is led to the sidecar. Ledgers are long: binary. */
export function createUsageClient(): Client<typeof UsageService> {
  const transport = createConnectTransport({ baseUrl: window.location.origin, useBinaryFormat: true });
  return createClient(UsageService, transport);
}

/** The service that this page came from. */
export function createParleyOfPage(): Parley {
  return createParley({ baseUrl: window.location.origin });
}
