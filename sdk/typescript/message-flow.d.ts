// The interfaces of `wit/` as a JavaScript or TypeScript plugin sees them: what it imports and what
// it exports. What each function means is said in the WIT files, which are the reference manual.
//
// A function that can fail throws its error; an exported one may throw a string, which is then
// the error that the operator reads.

/** Lines in the router's log, of any values. */
declare const console: Record<'trace' | 'debug' | 'log' | 'info' | 'warn' | 'error', (...values: unknown[]) => void>;

/** As browsers have it. `Math.random()` draws from the same source. */
declare const crypto: {
  getRandomValues<T extends ArrayBufferView>(array: T): T;
  randomUUID(): string;
};

declare module 'message-flow:plugin/types@0.1.0' {
  export interface ServiceId {
    name: string;
    version: string | null;
  }
  export interface Server {
    id: string;
    uri: string;
    weight: number;
    healthy: boolean;
    inFlight: number;
    metadata: [string, string][];
  }
  /** An answer in place of a server's: a status from 200 to 599 and a text for people. */
  export interface Rejection {
    status: number;
    reason: string;
  }
}

declare module 'message-flow:plugin/request@0.1.0' {
  import type { ServiceId } from 'message-flow:plugin/types@0.1.0';
  export function method(): string;
  export function path(): string;
  export function query(): string | null;
  export function authority(): string;
  export function header(name: string): string | null;
  export function headers(name: string): string[];
  export function headerNames(): string[];
  export function client(): string;
  export function peer(): string;
  export function service(): ServiceId;
  export function server(): string | null;
  export function setHeader(name: string, value: string): void;
  export function addHeader(name: string, value: string): void;
  export function removeHeader(name: string): void;
  export function setPath(pathAndQuery: string): void;
}

declare module 'message-flow:plugin/response@0.1.0' {
  export function status(): number;
  export function header(name: string): string | null;
  export function headers(name: string): string[];
  export function headerNames(): string[];
  export function setStatus(status: number): void;
  export function setHeader(name: string, value: string): void;
  export function addHeader(name: string, value: string): void;
  export function removeHeader(name: string): void;
}

declare module 'message-flow:plugin/body@0.1.0' {
  export type BodyError =
    | { tag: 'too-large'; val: number }
    | { tag: 'incomplete'; val: string }
    | { tag: 'unavailable' }
    | { tag: 'other'; val: string };
}

declare module 'message-flow:plugin/request-body@0.1.0' {
  /** Throws a `BodyError`. */
  export function read(limit: number): Uint8Array;
  /** Throws a `BodyError`. */
  export function replace(bytes: Uint8Array): void;
}

declare module 'message-flow:plugin/response-body@0.1.0' {
  /** Throws a `BodyError`. */
  export function read(limit: number): Uint8Array;
  /** Throws a `BodyError`. */
  export function replace(bytes: Uint8Array): void;
}

declare module 'message-flow:plugin/event@0.1.0' {
  export function topic(): string;
  export function payload(): Uint8Array;
  export function attribute(name: string): string | null;
  export function client(): string;
  export function setPayload(payload: Uint8Array): void;
  export function setAttribute(name: string, value: string): void;
}

declare module 'message-flow:plugin/candidates@0.1.0' {
  import type { Server } from 'message-flow:plugin/types@0.1.0';
  export type { Server };
  /** The id of the server with the least to do, of those whose metadata has all of these pairs. */
  export function leastLoaded(having: [string, string][]): string | null;
  export function servers(): Server[];
}

declare module 'message-flow:plugin/log@0.1.0' {
  export type Level = 'trace' | 'debug' | 'info' | 'warn' | 'error';
  export function log(level: Level, message: string): void;
}

declare module 'message-flow:plugin/config@0.1.0' {
  export function get(key: string): string | null;
  export function entries(): [string, string][];
}

declare module 'message-flow:plugin/state@0.1.0' {
  export type StateError =
    | { tag: 'full'; val: number }
    | { tag: 'not-a-number' }
    | { tag: 'other'; val: string };
  export type Cell = [string, Uint8Array | null];
  export function get(key: string): Uint8Array | null;
  /** Throws a `StateError`. */
  export function set(key: string, value: Uint8Array): void;
  /** Import the module as `* as state`: its name is a keyword. */
  function remove(key: string): boolean;
  export { remove as delete };
  /** Throws a `StateError`. */
  export function swap(key: string, expected: Uint8Array | null, value: Uint8Array | null): boolean;
  /** Throws a `StateError`. */
  export function apply(changes: Cell[], expected: Cell[]): boolean;
  /** Throws a `StateError`. */
  export function add(key: string, amount: number, ttlMs: number | null): number;
  export function scan(prefix: string, after: string | null, limit: number): [string, Uint8Array][];
}

declare module 'message-flow:plugin/clock@0.1.0' {
  /** Milliseconds since the Unix epoch. */
  export function now(): number;
  /** Nanoseconds since an arbitrary moment. */
  export function monotonic(): number;
}

declare module 'message-flow:plugin/random@0.1.0' {
  /** 64 random bits, of which a number keeps the first 53. */
  export function next(): number;
}

declare module 'message-flow:plugin/registrar@0.1.0' {
  import type { Rejection } from 'message-flow:plugin/types@0.1.0';
  export type Decision =
    | { tag: 'server'; val: string }
    | { tag: 'pass' }
    | { tag: 'reject'; val: Rejection };
  export interface Registrar {
    resolve(): Decision;
  }
}

declare module 'message-flow:plugin/request-filter@0.1.0' {
  import type { Rejection } from 'message-flow:plugin/types@0.1.0';
  export type Verdict = { tag: 'forward' } | { tag: 'respond'; val: Rejection };
  export interface RequestFilter {
    onRequest(): Verdict;
  }
}

declare module 'message-flow:plugin/response-filter@0.1.0' {
  export interface ResponseFilter {
    onResponse(): void;
  }
}

declare module 'message-flow:plugin/event-filter@0.1.0' {
  export type Verdict =
    | { tag: 'accept' }
    | { tag: 'drop' }
    | { tag: 'redirect'; val: string }
    | { tag: 'reject'; val: string };
  export interface EventFilter {
    onEvent(): Verdict;
  }
}

declare module 'message-flow:plugin/lifecycle@0.1.0' {
  export interface Lifecycle {
    start(): void;
  }
}
