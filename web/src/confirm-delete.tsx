import { useEffect, useRef, useState } from "preact/hooks";
import type { Problem } from "./problem.ts";
import { ProblemNote } from "./problem-note.tsx";

interface ConfirmDeleteProps {
  readonly name: string;
  /** Resolves to what went wrong, if anything did. */
  onConfirm(): Promise<Problem | undefined>;
  onClose(): void;
}

/** Asks before a session is deleted. */
export function ConfirmDelete({ name, onConfirm, onClose }: ConfirmDeleteProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  useEffect(() => dialog.current?.showModal(), []);

  const confirm = async (): Promise<void> => {
    setBusy(true);
    const failed = await onConfirm();
    setBusy(false);
    if (failed === undefined) dialog.current?.close();
    else setProblem(failed);
  };
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="delete-title" onClose={onClose}>
      <h2 id="delete-title">Delete this session?</h2>
      <p>
        “<span class="dialog-name">{name}</span>” and its messages will be gone for good.
      </p>
      {problem !== undefined && <ProblemNote problem={problem} />}
      <div class="dialog-buttons">
        <button type="button" class="quiet-button" onClick={() => dialog.current?.close()}>
          Keep it
        </button>
        <button type="button" class="danger-button" disabled={busy} onClick={() => void confirm()}>
          Delete
        </button>
      </div>
    </dialog>
  );
}
