import type { Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";

/** A protocol on a version of HTTP, as a generated client speaks it. */
export interface Wire {
  readonly name: string;
  readonly protocol: "connect" | "grpc" | "grpc-web";
  /** Whether messages are JSON; else binary. */
  readonly json: boolean;
  readonly httpVersion: "1.1" | "2";
  transport(url: string, options?: { useHttpGet?: boolean }): Transport;
}

/** Every way to call the one port that a Node client has. */
export const wires: readonly Wire[] = [
  wire("connect", { json: true, httpVersion: "1.1" }),
  wire("connect", { json: true, httpVersion: "2" }),
  wire("connect", { json: false, httpVersion: "1.1" }),
  wire("connect", { json: false, httpVersion: "2" }),
  wire("grpc", { json: false, httpVersion: "2" }),
  wire("grpc", { json: true, httpVersion: "2" }),
  wire("grpc-web", { json: false, httpVersion: "1.1" }),
  wire("grpc-web", { json: false, httpVersion: "2" }),
];

function wire(
  protocol: Wire["protocol"],
  { json, httpVersion }: { json: boolean; httpVersion: Wire["httpVersion"] },
): Wire {
  return {
    name: `${protocol} ${json ? "JSON" : "binary"} over ${httpVersion === "2" ? "h2c" : "HTTP/1.1"}`,
    protocol,
    json,
    httpVersion,
    transport(baseUrl, { useHttpGet = false } = {}) {
      const options = { baseUrl, httpVersion, useBinaryFormat: !json } as const;
      switch (protocol) {
        case "connect":
          return createConnectTransport({ ...options, useHttpGet });
        case "grpc":
          return createGrpcTransport(options);
        case "grpc-web":
          return createGrpcWebTransport(options);
      }
    },
  };
}
