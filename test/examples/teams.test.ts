import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { startScriptedModel } from "../../src/providers/scripted-model.ts";
import { readExample } from "../../standalone/example.ts";
import { callerOf } from "../app/clients.ts";
import { startTestApp } from "../support/parley-app.ts";
import { PERSON, transcriptOf } from "./transcript.ts";

// Each folder of examples/teams is run as its README says: what a person types there is sent to the real service with the
// example's parley.yaml, and what is seen has to be the README's transcript, to the letter.

const folder = join(import.meta.dirname, "../../examples/teams");
const names = readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
  entry.isDirectory() ? [entry.name] : [],
);

/** Answers to approvals, as a transcript has them. */
const APPROVALS: Readonly<Record<string, boolean>> = { "[Approve]": true, "[Refuse]": false };

test("there are five, and their table names each", () => {
  expect(names).toHaveLength(5);
  const table = readFileSync(join(folder, "README.md"), "utf8");
  for (const name of names) expect(table).toContain(`[${name}](${name}/README.md)`);
});

describe.each(names)("%s", (name) => {
  const { configFile, script } = readExample(name);
  const readme = readFileSync(join(folder, name, "README.md"), "utf8");
  const transcripts = [...readme.matchAll(/```text\n([\s\S]*?)```/g)].map(([, text = ""]) =>
    text.trimEnd().split("\n"),
  );

  test("the README says how to start it", () => {
    expect(readme).toContain(`make run EXAMPLE=${name}\n`);
    expect(transcripts.length).toBeGreaterThan(0);
  });

  test("what a person types leads to what the README shows, on the scripted model", async () => {
    const model = await startScriptedModel(script);
    onTestFinished(() => model.close());
    const app = await startTestApp({
      yaml: readFileSync(configFile, "utf8"),
      env: { OPENAI_BASE_URL: model.baseUrl },
    });
    onTestFinished(() => app.close());
    const caller = callerOf(app);
    for (const transcript of transcripts) {
      let sessionId = "";
      let asked: string[] = [];
      const seen: string[] = [];
      for (const line of transcript.filter((each) => each.startsWith(PERSON))) {
        const said = line.slice(PERSON.length);
        const approved = APPROVALS[said];
        const approvals = approved === undefined ? [] : asked.map((toolCallId) => ({ toolCallId, approved }));
        const reading = caller.stream(sessionId, approved === undefined ? said : "", "", { approvals });
        const failure = await reading.end;
        expect(model.problems).toEqual([]);
        expect(failure).toBeUndefined();
        for (const { event } of reading.events) if (event.case === "turnStarted") sessionId = event.value.sessionId;
        asked = reading.events.flatMap(({ event }) =>
          event.case === "approvalRequired" ? [event.value.toolCallId] : [],
        );
        seen.push(line, ...transcriptOf(reading.events));
      }
      expect(seen).toEqual(transcript);
    }
    model.verify();
  });
});
