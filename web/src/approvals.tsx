import { useState } from "preact/hooks";
import { ToolIcon } from "./icons.tsx";
import type { Approval } from "./sent-turn.ts";
import { ArgumentList } from "./tool-call.tsx";
import type { ApprovalStep } from "./turn-state.ts";

interface ApprovalsProps {
  /** Calls that are asked for together. */
  readonly asked: readonly ApprovalStep[];
  /** Absent: they have been answered, or nobody waits for an answer any more. */
  readonly onAnswer: ((approvals: readonly Approval[]) => void) | undefined;
}

/** Tool calls that wait for a person, each with two buttons. The answers go out together, with the last of them. */
export function Approvals({ asked, onAnswer }: ApprovalsProps) {
  const [answers, setAnswers] = useState<Readonly<Record<string, boolean>>>({});
  const [comment, setComment] = useState("");
  const answer = (toolCallId: string, approved: boolean): void => {
    const all = { ...answers, [toolCallId]: approved };
    setAnswers(all);
    if (!asked.every((step) => step.toolCallId in all)) return;
    onAnswer?.(
      asked.map(({ toolCallId: id }) => ({
        toolCallId: id,
        approved: all[id] === true,
        comment: all[id] ? "" : comment,
      })),
    );
    // The buttons go, and what is next is in the field.
    document.getElementById("message")?.focus();
  };
  return (
    <section class={onAnswer === undefined ? "approvals" : "approvals approvals-open"} aria-label="Approval">
      {asked.map(({ toolCallId, agent, tool, argumentsJson }) => (
        <div key={toolCallId} class="approval">
          <p class="approval-call">
            <ToolIcon />
            <span>
              <span class="tool-agent">{agent}</span> asks to call <code>{tool}</code>
            </span>
          </p>
          <ArgumentList argumentsJson={argumentsJson} />
          {onAnswer !== undefined && (
            <div class="approval-buttons">
              {[true, false].map((approved) => (
                <button
                  key={String(approved)}
                  type="button"
                  class={approved ? "approve-button" : "quiet-button"}
                  aria-label={`${approved ? "Approve" : "Refuse"} ${tool}`}
                  aria-pressed={asked.length > 1 ? answers[toolCallId] === approved : undefined}
                  onClick={() => answer(toolCallId, approved)}
                >
                  {approved ? "Approve" : "Refuse"}
                </button>
              ))}
            </div>
          )}
        </div>
      ))}
      {onAnswer !== undefined && (
        <label class="approval-comment">
          <span>If you refuse, tell the agent why</span>
          <input
            type="text"
            value={comment}
            maxLength={10_000}
            onInput={(event) => setComment(event.currentTarget.value)}
          />
        </label>
      )}
    </section>
  );
}
