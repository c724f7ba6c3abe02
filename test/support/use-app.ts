import { afterAll, beforeAll } from "vitest";
import { startTestApp, type TestApp, type TestAppOptions } from "./parley-app.ts";

/** A service that the tests of a file share: there while they run, and gone after the last of them. */
export function useTestApp(options?: TestAppOptions): Omit<TestApp, "close"> {
  let started: TestApp | undefined;
  beforeAll(async () => {
    started = await startTestApp(options);
  });
  afterAll(() => started?.close());
  const app = (): TestApp => {
    if (started === undefined) throw new Error("the service is there while tests run");
    return started;
  };
  return {
    get url() {
      return app().url;
    },
    get opsUrl() {
      return app().opsUrl;
    },
    get app() {
      return app().app;
    },
    get simulated() {
      return app().simulated;
    },
    get logs() {
      return app().logs;
    },
    get stores() {
      return app().stores;
    },
    metrics: () => app().metrics(),
  };
}
