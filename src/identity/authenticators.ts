import { createApiKeyAuthenticator } from "./api-key-authenticator.ts";
import type { ApiKeyStore } from "./api-keys.ts";
import type { AuthConfig } from "./auth-environment.ts";
import type { Authenticator } from "./authenticator.ts";
import { createJwtAuthenticator } from "./jwt-authenticator.ts";

/** How the configuration knows callers; undefined: everyone is anyone. `keys` is needed with api_key only. */
export function authenticatorOf(
  auth: AuthConfig,
  { keys }: { keys?: Pick<ApiKeyStore, "find"> },
): Authenticator | undefined {
  switch (auth.mode) {
    case "none":
      return undefined;
    case "jwt":
      return createJwtAuthenticator(auth);
    case "api_key":
      if (keys === undefined) throw new TypeError("API keys are kept in a store");
      return createApiKeyAuthenticator({ keys });
  }
}
