import { stringify } from "yaml";
import type { AlertRule } from "./alert-rules.ts";

/** Who is told. */
export type Receiver = "pagerduty" | "slack" | "dead-mans-switch";

/** What differs from one installation to another. Keys and URLs that are secrets come from files. */
export interface AlertmanagerOptions {
  /** Folder with the files `pagerduty-routing-key`, `slack-url` and `dead-mans-switch-token`, as a mounted Secret has them. */
  readonly secretsFolder?: string;
  readonly slackChannel?: string;
  /** Where the watchdog beats; sent with the token as a bearer. Alertmanager 0.25 reads no URL of a webhook from a file. */
  readonly deadMansSwitchUrl?: string;
  /** PagerDuty's events API, or what stands for it. */
  readonly pagerDutyUrl?: string;
  /** How long a group waits for more, at first and later, and until it is repeated. */
  readonly waits?: { readonly first: string; readonly next: string; readonly repeat: string };
}

/** Whom an alert goes to; the routes below say the same to Alertmanager, and a test compares the two. */
export function receiverOf({ severity }: Pick<AlertRule, "severity">): Receiver {
  switch (severity) {
    case "critical":
      return "pagerduty";
    case "warning":
      return "slack";
    case "none":
      return "dead-mans-switch";
  }
}

/** A causes B: while A is told, B is not. */
interface Inhibition {
  readonly source_matchers: readonly string[];
  readonly target_matchers: readonly string[];
  readonly equal: readonly string[];
}

/**
 * Alertmanager takes two labels that are both missing for equal. Each alert therefore has `slo` or `kind`, and both are
 * compared: else any critical alert would hush every warning that has no `slo`. So is `model`, for kind `model`.
 */
const INHIBITIONS: readonly Inhibition[] = [
  {
    source_matchers: ['severity="critical"'],
    target_matchers: ['severity="warning"'],
    equal: ["namespace", "service", "slo", "kind", "model"],
  },
  // One outage, one page: what a lost store or lost replicas do to the targets is known.
  {
    source_matchers: ['alertname=~"ParleyServiceDown|ParleySessionStoreDown"'],
    target_matchers: ['slo=~".+"'],
    equal: ["namespace", "service"],
  },
  {
    source_matchers: ['alertname=~"ParleySidecarDown|ParleySessionStoreDown"'],
    target_matchers: ['alertname=~"ParleyLedgerLag|ParleyCostDrift"'],
    equal: ["namespace", "service"],
  },
];

/** A configuration for Alertmanager 0.25 or newer: critical alerts page, the watchdog beats, all others are messages. */
export function renderAlertmanagerConfig({
  secretsFolder = "/etc/alertmanager/secrets",
  slackChannel = "#parley-alerts",
  deadMansSwitchUrl = "http://dead-mans-switch/parley",
  pagerDutyUrl = "https://events.pagerduty.com/v2/enqueue",
  waits = { first: "30s", next: "5m", repeat: "4h" },
}: AlertmanagerOptions = {}): string {
  const secret = (name: string) => `${secretsFolder}/${name}`;
  const receivers: Readonly<Record<Receiver, object>> = {
    pagerduty: {
      pagerduty_configs: [
        {
          routing_key_file: secret("pagerduty-routing-key"),
          url: pagerDutyUrl,
          send_resolved: true,
          severity: "critical",
          description: TITLE,
          details: { alerts: LINES, runbook: "{{ (index .Alerts 0).Annotations.runbook_url }}" },
        },
      ],
    },
    slack: {
      slack_configs: [
        { api_url_file: secret("slack-url"), channel: slackChannel, send_resolved: true, title: TITLE, text: LINES },
      ],
    },
    "dead-mans-switch": {
      webhook_configs: [
        {
          url: deadMansSwitchUrl,
          // Silence is what raises the alarm there.
          send_resolved: false,
          http_config: { authorization: { credentials_file: secret("dead-mans-switch-token") } },
        },
      ],
    },
  };
  const to = (receiver: Receiver) => receiver;
  return stringify(
    {
      route: {
        // Whatever the rules forget still reaches somebody.
        receiver: to("slack"),
        group_by: ["alertname", "namespace", "service"],
        group_wait: waits.first,
        group_interval: waits.next,
        repeat_interval: waits.repeat,
        routes: [
          {
            receiver: to("dead-mans-switch"),
            matchers: ['alertname="ParleyWatchdog"'],
            group_wait: "0s",
            group_interval: "1m",
            repeat_interval: "1m",
          },
          { receiver: to("pagerduty"), matchers: ['severity="critical"'] },
        ],
      },
      inhibit_rules: INHIBITIONS,
      receivers: Object.entries(receivers).map(([name, configs]) => ({ name, ...configs })),
    },
    { lineWidth: 0, aliasDuplicateObjects: false },
  );
}

const TITLE =
  '[{{ .Status | toUpper }}{{ if eq .Status "firing" }}:{{ .Alerts.Firing | len }}{{ end }}] {{ .GroupLabels.alertname }}{{ with .GroupLabels.namespace }} in {{ . }}{{ end }}';

/** Sidecars post alerts of anomalies themselves, with the session to look at. */
const LINES = [
  "{{ range .Alerts }}{{ .Annotations.summary }}",
  "{{ with .Annotations.description }} {{ . }}{{ end }}",
  "{{ with .Annotations.session_id }} Session: {{ . }}.{{ end }}",
  "{{ with .Annotations.runbook_url }} Runbook: {{ . }}{{ end }}\n{{ end }}",
].join("");
