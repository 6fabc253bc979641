/**
 * A service's connection to Message Flow: who it is, what it needs, and what it is told.
 *
 * It works in Node and in the browser. It connects, sends the definition, passes on what the router says,
 * and when the connection is lost connects again, to the next router in the list, saying which revision it
 * has seen last so that nothing is missed and nothing told twice.
 */
import { Backoff } from './backoff.js';

const PATH = '/v1/connect';
const PROTOCOL = 'message-flow';
/** A connection that lasted so long, or brought a message, was a good one; a registration that did, too. Milliseconds. */
const GOOD_AFTER = 5_000;
/** Why a server is not registered any more, where that was meant: then it is not registered again by itself. */
const MEANT = ['removed', 'replaced'];
/** Neither a handshake nor the silence of a router may take longer. Milliseconds. */
const PATIENCE = 20_000;

/** Connects a service; see `index.d.ts` for everything that can be said. */
export function connect(routers, definition, options = {}) {
  return new Service([routers].flat(), definition, options);
}

/** @implements {import('./index.d.ts').Service} */
export class Service {
  #routers;
  #definition;
  #options;
  #backoff;
  /** Before registering again over the same connection. */
  #again;
  #listeners = new Map();
  #socket = null;
  #turn = 0;
  #since;
  /** The requirements of which something was told, so that `since` is about them. */
  #told = new Set();
  #registering = null;
  #lasting = null;
  #timers = new Set();
  #draining = null;
  #closed = false;

  constructor(routers, definition, options) {
    if (routers.length === 0) throw new TypeError('name at least one router, such as ws://127.0.0.1:8081');
    this.#routers = routers.map(address);
    this.#definition = { ...definition };
    this.#options = options;
    this.#backoff = new Backoff(options.backoff);
    this.#again = new Backoff(options.backoff);
    this.#since = options.since;
    if (options.since !== undefined) this.#requirements().forEach((name) => this.#told.add(name));
    this.#dial();
  }

  /** The highest revision that was seen. */
  get since() {
    return this.#since;
  }

  /** Calls `listener` for each event of a kind; the result ends that. */
  on(kind, listener) {
    const listeners = this.#listeners.get(kind) ?? new Set();
    this.#listeners.set(kind, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /** Needs these services as well. */
  require(...names) {
    this.define({ requires: [...new Set([...(this.#definition.requires ?? []), ...names])] });
  }

  /** Needs these services no longer. */
  release(...names) {
    this.define({ requires: (this.#definition.requires ?? []).filter((name) => !names.includes(name)) });
  }

  /** Changes the definition, at the router too; keys that are not named stay. */
  define(changes) {
    Object.assign(this.#definition, changes);
    const needed = this.#requirements();
    this.#told.forEach((name) => needed.includes(name) || this.#told.delete(name));
    this.#say(this.#definition);
  }

  /** Resolves when no router sends anything here any more: then it is safe to exit. */
  drain() {
    if (!this.#draining) {
      this.#draining = Promise.withResolvers?.() ?? resolvers();
      this.#say({ type: 'drain' });
    }
    return this.#draining.promise;
  }

  /** Ends the connection for good. The router gives the service up after its grace period. */
  close() {
    this.#closed = true;
    this.#timers.forEach(clearTimeout);
    this.#timers.clear();
    this.#socket?.close(1000);
  }

  async #dial() {
    const router = this.#routers[this.#turn++ % this.#routers.length];
    try {
      const WebSocket = this.#options.WebSocket ?? (await implementation());
      if (!this.#closed) this.#follow(open(WebSocket, router, this.#options.token), router);
    } catch (error) {
      this.#lost(error.message);
    }
  }

  #follow(socket, router) {
    this.#socket = socket;
    let [open, good] = [false];
    const late = this.#after(PATIENCE, () => socket.close());
    const alive = keepAlive(socket);
    socket.onopen = () => {
      open = true;
      this.#cancel(late);
      good = this.#after(GOOD_AFTER, () => this.#backoff.reset());
      this.#say({ ...this.#definition, ...this.#resume() });
      if (this.#draining) this.#say({ type: 'drain' });
      this.#emit('connected', { router });
    };
    socket.onmessage = ({ data }) => {
      this.#backoff.reset();
      this.#hear(data);
    };
    // What failed comes with `close`; without a listener Node's `ws` would throw.
    let failure = '';
    socket.onerror = (event) => (failure = event.message ?? '');
    socket.onclose = ({ code, reason }) => {
      [late, good, this.#registering, this.#lasting].forEach((timer) => this.#cancel(timer));
      this.#registering = null;
      alive.end();
      const why = reason || failure || `closed with ${code}`;
      if (open) this.#emit('disconnected', { router, reason: why });
      this.#lost(why);
    };
  }

  #lost(reason) {
    this.#socket = null;
    if (this.#closed) return;
    const delay = this.#backoff.next();
    this.#emit('reconnecting', { delay, reason });
    this.#after(delay, () => this.#dial());
  }

  #say(message) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  #hear(text) {
    const message = parsed(text);
    const payload = message?.payload ?? {};
    const revision = message?.revision ?? payload.revision;
    switch (message?.type) {
      case 'required-service':
        this.#emit('required', payload);
        break;
      case 'required-service-lost':
        this.#emit('lost', payload);
        break;
      case 'drained':
        this.#draining?.resolve();
        break;
      case 'error':
        // Nothing is registered, so nothing is sent here.
        if (this.#draining && payload.code === 'undefined') this.#draining.resolve();
        else this.#emit('error', payload);
        if (payload.code === 'deregistered') this.#deregistered(payload.cause);
        break;
    }
    if (payload.name && message.type.startsWith('required-service')) this.#told.add(payload.requirement ?? payload.name);
    if (message?.type) this.#emit('message', message);
    if (revision !== undefined) this.#since = highest(this.#since, revision);
  }

  /** What is known, for the first definition of a connection. */
  #resume() {
    if (this.#since === undefined) return {};
    const anew = this.#requirements().filter((name) => !this.#told.has(name));
    return { since: this.#since, ...(anew.length > 0 && { anew }) };
  }

  /** What is needed, by the names by which it is told. */
  #requirements() {
    return (this.#definition.requires ?? []).map((need) => {
      if (typeof need === 'string') return need;
      return need.version === undefined ? need.name : `${need.name.split('@')[0]}@${need.version}`;
    });
  }

  /** The connection is open and its server is not registered: registers it again, unless somebody meant it. */
  #deregistered(cause) {
    // Nothing is registered any more, which the router says if it is asked.
    if (this.#draining) return this.#say({ type: 'drain' });
    this.#cancel(this.#lasting);
    if (MEANT.includes(cause) || this.#registering) return;
    this.#registering = this.#after(this.#again.next(), () => {
      this.#registering = null;
      this.#say(this.#definition);
      this.#lasting = this.#after(GOOD_AFTER, () => this.#again.reset());
    });
  }

  #emit(kind, event) {
    for (const listener of this.#listeners.get(kind) ?? []) listener(event);
  }

  #after(delay, call) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      call();
    }, delay);
    this.#timers.add(timer);
    return timer;
  }

  #cancel(timer) {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }
}

/** `http://HOST:PORT` and `ws://HOST:PORT` are a router; a path of one's own is kept. */
function address(text) {
  const url = new URL(text);
  url.protocol = url.protocol.replace(/^http/, 'ws');
  if (url.pathname === '/') url.pathname = PATH;
  return url.href;
}

/** The `ws` package in Node, as it can ping; else what the platform has. */
async function implementation() {
  const isNode = typeof process !== 'undefined' && process.versions?.node;
  if (!isNode) return globalThis.WebSocket;
  try {
    return (await import('ws')).default;
  } catch {
    if (globalThis.WebSocket) return globalThis.WebSocket;
    throw new Error('this Node has no WebSocket: npm install ws');
  }
}

/**
 * The platform's own WebSocket sets no headers, as in browsers: there the token is offered as a subprotocol.
 * The router answers with the one that holds no token.
 */
function open(WebSocket, router, token) {
  if (!token) return new WebSocket(router);
  if (WebSocket === globalThis.WebSocket) return new WebSocket(router, [PROTOCOL, `${PROTOCOL}.bearer.${base64url(token)}`]);
  return new WebSocket(router, { headers: { authorization: `Bearer ${token}` } });
}

function base64url(text) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** Ends a connection whose other end is silent; where the platform cannot ping, it sees to that itself. */
function keepAlive(socket) {
  if (!socket.ping || !socket.terminate) return { end() {} };
  let heard = true;
  const note = () => (heard = true);
  ['pong', 'ping', 'message'].forEach((event) => socket.on(event, note));
  const timer = setInterval(() => {
    if (socket.readyState !== 1) return;
    if (!heard) return socket.terminate();
    heard = false;
    socket.ping();
  }, PATIENCE / 2);
  timer.unref?.();
  return { end: () => clearInterval(timer) };
}

/** 0 says that what was seen before is of another table. */
function highest(known, came) {
  if (typeof known !== 'number' || typeof came !== 'number' || came === 0) return came;
  return Math.max(known, came);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function resolvers() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}
