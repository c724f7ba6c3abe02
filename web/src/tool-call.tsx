import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { ToolIcon } from "./icons.tsx";
import { toolSentence } from "./sentences.ts";
import type { ToolStep } from "./turn-state.ts";

/** A tool call in a line; what it was given and what it said are folded away. */
export function ToolCall({ step, named }: { step: ToolStep; named: boolean }) {
  const { agent, tool, outcome, argumentsJson, result } = step;
  const running = outcome === ToolOutcome.UNSPECIFIED;
  const failed = !running && outcome !== ToolOutcome.OK;
  return (
    <details class={failed ? "tool tool-failed" : "tool"}>
      <summary class={running ? "tool-line tool-running" : "tool-line"}>
        <ToolIcon />
        <span>
          {named && <span class="tool-agent">{agent}: </span>}
          {toolSentence(tool, outcome)}
        </span>
      </summary>
      <dl class="tool-facts">
        <dt>Arguments</dt>
        <dd>
          <code>{readable(argumentsJson)}</code>
        </dd>
        <dt>Result</dt>
        <dd>
          <code>{running ? "…" : result}</code>
        </dd>
      </dl>
    </details>
  );
}

/** What a call is to be made with, by name. */
export function ArgumentList({ argumentsJson }: { argumentsJson: string }) {
  const given = argumentsOf(argumentsJson);
  if (given === undefined) return <code class="tool-facts">{argumentsJson}</code>;
  return (
    <dl class="tool-facts">
      {given.length === 0 && <dt>No arguments</dt>}
      {given.map(([name, value]) => [
        <dt key={`${name} name`}>{name}</dt>,
        <dd key={name}>{typeof value === "string" ? value : <code>{JSON.stringify(value, null, 2)}</code>}</dd>,
      ])}
    </dl>
  );
}

function argumentsOf(argumentsJson: string): [string, unknown][] | undefined {
  try {
    return Object.entries(JSON.parse(argumentsJson) as object);
  } catch {
    return undefined;
  }
}

/** The JSON on lines of its own, as it is where it is none. */
function readable(argumentsJson: string): string {
  try {
    const value = JSON.parse(argumentsJson) as object;
    return Object.keys(value).length === 0 ? "none" : JSON.stringify(value, null, 2);
  } catch {
    return argumentsJson;
  }
}
