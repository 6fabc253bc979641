/** Who a service is and what it needs, as the router reads it. */
export interface Definition {
  /** Such as `chat`. */
  name: string;
  /** Versions of a service are separate: `chat@2` is `{ name: 'chat', version: '2' }`. */
  version?: string;
  /** Where the service listens. */
  port?: number;
  /** Defaults to the address from which it connects. */
  host?: string;
  /** In place of `host` and `port`. */
  uri?: string;
  /** Services that it needs, such as `explosion-service` or `explosion-service@2`. */
  requires?: string[];
  /** `'all'`: be told of every server of a requirement. */
  servers?: 'all';
  /** Its share of new clients relative to the other servers. */
  weight?: number;
  metadata?: Record<string, string>;
  /** What others are told in place of its own address. */
  load_balancer?: string;
  [key: string]: unknown;
}

/** A server of a required service. */
export interface RequiredService {
  name: string;
  host: string;
  port: number;
  version?: string;
  uri?: string;
  metadata?: Record<string, string>;
  [key: string]: unknown;
}

export interface LostService {
  name: string;
  [key: string]: unknown;
}

export interface Message {
  type: string;
  payload?: Record<string, unknown>;
  revision?: number | string;
}

/** What is told, by kind. */
export interface Events {
  /** A required service is there. */
  required: RequiredService;
  /** The last server of a required service is gone. */
  lost: LostService;
  /**
   * The router did not accept something; the connection stays. With the code `deregistered`, `cause` says why the
   * server is not registered any more: `removed` by somebody, `replaced` by another connection. Without one nobody
   * meant it, and it is registered again after a pause.
   */
  error: { code: string; reason: string; cause?: string };
  connected: { router: string };
  disconnected: { router: string; reason: string };
  reconnecting: { delay: number; reason: string };
  /** Everything that the router says, these included. */
  message: Message;
}

export interface Options {
  /** An access token. */
  token?: string;
  /** The highest revision that was seen in an earlier run, with these requirements. */
  since?: number | string;
  /** Milliseconds; the defaults are 200 and 10,000. */
  backoff?: { first?: number; longest?: number; random?: () => number };
  /** In place of the platform's, or of the `ws` package. */
  WebSocket?: unknown;
}

export interface Service {
  /** The highest revision that was seen. */
  readonly since: number | string | undefined;
  /** Calls `listener` for each event of a kind; the result ends that. */
  on<Kind extends keyof Events>(kind: Kind, listener: (event: Events[Kind]) => void): () => boolean;
  /** Needs these services as well. */
  require(...names: string[]): void;
  /** Needs these services no longer. */
  release(...names: string[]): void;
  /** Changes the definition, at the router too; keys that are not named stay. */
  define(changes: Partial<Definition>): void;
  /** Resolves when no router sends anything here any more: then it is safe to exit. */
  drain(): Promise<void>;
  /** Ends the connection for good. */
  close(): void;
}

/**
 * Connects a service to the first router that answers, and again whenever the connection is lost.
 *
 * @param routers one or several, such as `ws://127.0.0.1:8081`
 */
export function connect(routers: string | string[], definition: Definition, options?: Options): Service;
