// What a Message Flow script can call, for editors. A script is one JavaScript file in the plugins
// directory; this file is its manual. Use it with
//
//     /// <reference path="message-flow.d.ts" />
//
// as the first line of a script, or list it in `jsconfig.json` under `include`.
//
// A script is what it exports: `resolve` makes it a registrar, `onRequest` and `onResponse` filters,
// `onEvent` an event filter. These run at once: none may be `async`. A script has 50 ms for a call
// and 64 MiB unless `[plugin.NAME]` says otherwise; what it throws is an error that names file, line
// and column. Variables last only as long as an instance, of which there are several: what must be
// remembered goes to `state`.

/** What `resolve` returns: a server's id or URI, nothing (no opinion: the server list decides), or one of these. */
type Decision =
  | string
  | undefined
  | null
  | void
  | { server: string }
  | { pass: true }
  | { reject: Rejection };

/** What `onRequest` returns: nothing to send the request on, or an answer in place of a server's. */
type Verdict = undefined | null | void | { respond: Rejection };

/** What `onEvent` returns: nothing to accept the event, or one of these. */
type EventVerdict = undefined | null | void | { drop: true } | { redirect: string } | { reject: string };

/**
 * An answer in place of a server's: a status from 200 to 599, and the `detail` of a problem document. It
 * has no headers of its own; those of a server's answer are set in `onResponse`.
 */
interface Rejection {
  status: number;
  reason?: string;
}

/** `export const resolve: Resolve = () => …` */
type Resolve = () => Decision;
type OnRequest = () => Verdict;
type OnResponse = () => void;
type OnEvent = () => EventVerdict;

/**
 * `export const readsBody = true;` in a script that reads or sets bodies. Its calls wait for them, also
 * against the deadline; of scripts without it bodies are streamed past.
 */
type ReadsBody = boolean;

/** The body of the request or response at hand, in scripts that say `readsBody`. */
interface WithBody {
  /**
   * All of it, as text, without its `content-encoding`: what was read is sent on decoded. Throws if it
   * has more than `limit` bytes, or more than `body` under `[plugin.NAME]` allows (1 MiB), or cannot
   * be decoded; what cannot be is not sent on, whoever catches that, unless `setBody` replaces it.
   */
  body(limit?: number): string;
  /** The same, as what the JSON in it says. */
  json(limit?: number): any;
  bytes(limit?: number): Uint8Array;
  /**
   * Sends this in its place, read or not. `content-length` follows; `content-encoding`, `etag` and
   * digests of what was there are removed.
   */
  setBody(body: string | Uint8Array): void;
}

/** The request at hand. Header names are case-insensitive. Changes count in `onRequest` alone. */
declare const request: {
  method(): string;
  /** Without the query; always starts with `/`. */
  path(): string;
  query(): string | undefined;
  /** The host and port that the client asked for. */
  authority(): string;
  /** The first value of a header. */
  header(name: string): string | undefined;
  headers(name: string): string[];
  /** In lower case, each once. */
  headerNames(): string[];
  /** Who sends the message: the client id. */
  client(): string;
  /** The address of the connection, such as `192.0.2.7:50412`. */
  peer(): string;
  service(): { name: string; version?: string };
  /** The id of the chosen server; none while `resolve` is asked. */
  server(): string | undefined;
  /** Replaces every value of a header, or adds it. */
  setHeader(name: string, value: string): void;
  addHeader(name: string, value: string): void;
  removeHeader(name: string): void;
  /** Path and query; starts with `/`. */
  setPath(pathAndQuery: string): void;
} & WithBody;

/** The response at hand, in `onResponse`. */
declare const response: {
  status(): number;
  header(name: string): string | undefined;
  headers(name: string): string[];
  headerNames(): string[];
  /** From 200 to 599. */
  setStatus(status: number): void;
  setHeader(name: string, value: string): void;
  addHeader(name: string, value: string): void;
  removeHeader(name: string): void;
} & WithBody;

/** The event at hand, in `onEvent`. */
declare const event: {
  topic(): string;
  /** As text. */
  payload(): string;
  attribute(name: string): string | undefined;
  client(): string;
  setPayload(text: string): void;
  setAttribute(name: string, value: string): void;
};

interface Server {
  id: string;
  uri: string;
  /** Its share of unassigned clients relative to the others; 1 unless set. */
  weight: number;
  /** False while it is suspect. */
  healthy: boolean;
  /** Messages sent to it by this router and not yet answered. */
  inFlight: number;
  /** What it was registered with, such as `{ region: "eu" }`. */
  metadata: Record<string, string>;
}

/** Whom `resolve` may choose among. */
declare const candidates: {
  /**
   * The id of the server with the least to do for its weight, of those whose metadata has all of this:
   * `candidates.leastLoaded({ region: "eu" })`. What is undefined is not asked for; without
   * anything it is of all. Healthy ones come first; of equals each client has its own favourite.
   */
  leastLoaded(having?: Record<string, string | undefined>): string | undefined;
  /** All of them with all that is known of each, for other choices; dearer. */
  servers(): Server[];
};

/** What the operator wrote in `[plugin.NAME] config`. */
declare const config: {
  get(key: string): string | undefined;
  entries(): Record<string, string>;
};

/**
 * What the plugin remembers, as text: shared by its instances, kept over reloads, and with
 * `[plugin.NAME] state = "durable"` over restarts. Throws when it is full (`state_limit`).
 */
declare const state: {
  get(key: string): string | undefined;
  set(key: string, value: string): void;
  /** Whether it was there. */
  delete(key: string): boolean;
  /** Sets, or with nothing deletes, if what is there equals `expected`. Whether it did. */
  swap(key: string, expected: string | undefined, value: string | undefined): boolean;
  /**
   * Adds to a number, atomically, and returns the sum. With `ttlMs`, a number created by this call
   * goes away so many milliseconds later.
   */
  add(key: string, amount: number, ttlMs?: number): number;
  /** Up to `limit` (1000) keys with their values, in order, that start with `prefix` and come after `after`. */
  scan(prefix: string, after?: string, limit?: number): [string, string][];
};

/** Lines in the router's log; `console.log` and its like do the same for any values. */
declare const log: Record<"trace" | "debug" | "info" | "warn" | "error", (message: string) => void>;

/** As browsers have it. `Math.random()` draws from the same source. */
declare const crypto: {
  getRandomValues<T extends ArrayBufferView>(array: T): T;
  /** Such as `36b8f84d-df4e-4d49-b662-bcde71a8764f`. */
  randomUUID(): string;
};

declare const clock: {
  /** Milliseconds since the Unix epoch, as `Date.now()`. */
  now(): number;
  /** Nanoseconds since an arbitrary moment; never goes backwards. */
  monotonic(): number;
};
