/** Who calls. With AUTH_MODE=none everyone is tenant `default`, and the request says which user. */
export interface Principal {
  readonly tenant: string;
  /** The user that the credentials prove; absent: the request names one. */
  readonly userId?: string;
}

export const ANYONE: Principal = Object.freeze({ tenant: "default" });
