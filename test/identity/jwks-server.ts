import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";

/** An issuer of tokens, with its keys on the loopback. */
export interface TestIssuer {
  readonly issuer: string;
  readonly jwksUrl: string;
  /** How often its keys were asked for. */
  readonly requests: () => number;
  /** Signs a token as `claims` say; `exp` in an hour unless they say otherwise. By its newest key, or another. */
  sign(claims: JWTPayload, options?: { key?: IssuerKey }): Promise<string>;
  /** Makes a new key, publishes it, and withdraws the others if asked. */
  rotate(options?: { withdraw?: boolean }): Promise<IssuerKey>;
  /** What it answers from now on: its keys, or nothing good. */
  answer(how: "keys" | "error" | "nonsense"): void;
  close(): Promise<void>;
}

export interface IssuerKey {
  readonly kid: string;
  readonly privateKey: CryptoKey;
}

export const AUDIENCE = "parley";

export async function startIssuer(): Promise<TestIssuer> {
  const published = new Map<string, object>();
  let newest: IssuerKey | undefined;
  let requests = 0;
  let how: "keys" | "error" | "nonsense" = "keys";
  const server = createServer((_, response) => {
    requests += 1;
    response.statusCode = how === "error" ? 503 : 200;
    response.setHeader("content-type", "application/json");
    response.end(how === "nonsense" ? "<html>" : JSON.stringify({ keys: [...published.values()] }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const issuer = `http://127.0.0.1:${port}/`;

  const rotate: TestIssuer["rotate"] = async ({ withdraw = false } = {}) => {
    const { publicKey, privateKey } = await generateKeyPair("ES256");
    const kid = crypto.randomUUID();
    if (withdraw) published.clear();
    published.set(kid, { ...(await exportJWK(publicKey)), kid, alg: "ES256", use: "sig" });
    newest = { kid, privateKey };
    return newest;
  };
  await rotate();

  return {
    issuer,
    jwksUrl: `${issuer}jwks.json`,
    requests: () => requests,
    async sign(claims, { key = newest } = {}) {
      if (key === undefined) throw new Error("there is no key");
      const now = Math.floor(Date.now() / 1_000);
      return new SignJWT({ iss: issuer, aud: AUDIENCE, sub: "ann", iat: now, exp: now + 3_600, ...claims })
        .setProtectedHeader({ alg: "ES256", kid: key.kid })
        .sign(key.privateKey);
    },
    rotate,
    answer(next) {
      how = next;
    },
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
