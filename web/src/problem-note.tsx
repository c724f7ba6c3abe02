import type { Problem } from "./problem.ts";

/** An error, as sentences. */
export function ProblemNote({ problem }: { problem: Problem }) {
  return (
    <div class="problem" role="alert">
      <p>
        {[problem.sentence, ...problem.advice].join(" ")}
        {problem.reason !== "" && (
          <>
            {" "}
            <code class="reason">{problem.reason}</code>
          </>
        )}
      </p>
    </div>
  );
}
