/**
 * What the console says for reasons of the service's table of errors whose own sentence speaks to programs: of fields,
 * details and delays. How long to wait and what a field's rule is follow as sentences of their own.
 */
export const problemSentences: Readonly<Record<string, string>> = {
  // The fields and their rules say it all.
  INVALID_FIELD: "",
  REQUEST_TOO_LARGE: "This is too much for one message. Send less at a time.",
  SESSION_NOT_FOUND: "This session is gone: it was deleted, or it has expired.",
  SESSION_DELETED: "This session was deleted while it answered.",
  TURN_NOT_FOUND: "The rest of this answer is gone: its session was deleted, or it has expired.",
  TURN_LOG_TRIMMED: "The beginning of this answer is no longer kept. Load this page again when it has ended.",
  CURSOR_OUT_OF_RANGE: "This answer is not what it was. Load this page again to see what was said.",
  SESSION_BUSY: "The session has an answer running. Wait for it, or interrupt it.",
  IDEMPOTENCY_KEY_REUSED: "This message was sent before in another form. Send it once more.",
  APPROVAL_NOT_PENDING: "Nobody waits for this approval any more. Load this page again to see what was said.",
  AGENT_TEAM_NOT_FOUND: "The service no longer has this team. Choose another.",
  IDENTITY_UNAVAILABLE: "Who you are cannot be checked for now.",
  USER_NOT_ALLOWED: "Your credentials are another user's. Act as yourself.",
  USE_CASE_NOT_ALLOWED: "Your credentials are for something else.",
  BUDGET_EXHAUSTED: "A budget does not have what this answer may cost.",
  CALL_EXCEEDS_BUDGET:
    "This answer may cost more than a whole budget. Shorten the message, or ask for a larger budget.",
  RATE_LIMITED: "You have started as many turns as are allowed for now.",
  TURN_TOKEN_BUDGET: "The message is too long for the model. Shorten it.",
  DEADLINE_EXCEEDED: "The service took too long. Load this page again to see what was said.",
  LEASE_LOST: "The session went on elsewhere. Load this page again to see what was said.",
  MODEL_RATE_LIMITED: "The model's provider takes no more calls for now.",
  MODEL_UNAVAILABLE: "The model did not answer, or broke off.",
  STORE_UNAVAILABLE: "The service cannot reach its session store.",
  DRAINING: "This part of the service is being replaced; another answers soon.",
  INTERNAL: "Something went wrong in the service. Tell whoever runs it when it happened.",
};
