/** The client against a router that says what each test wants, over real sockets. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { WebSocket, WebSocketServer } from 'ws';
import { Backoff } from '../backoff.js';
import { connect } from '../index.js';

const DEFINITION = { name: 'carchase-service', port: 9877, requires: ['explosion-service'] };
const EXPLOSION = { name: 'explosion-service', port: 8003, host: '10.9.8.10' };

/** A router that keeps what it hears. */
class Router {
  static async start() {
    const router = new Router();
    router.server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    await once(router.server, 'listening');
    router.url = `ws://127.0.0.1:${router.server.address().port}`;
    return router;
  }

  async accept() {
    const [socket, request] = await once(this.server, 'connection');
    const heard = [];
    let wake = () => {};
    socket.on('message', (data) => (heard.push(JSON.parse(data)), wake()));
    const next = async () => {
      while (heard.length === 0) await new Promise((resolve) => (wake = resolve));
      return heard.shift();
    };
    const say = (message) => socket.send(typeof message === 'string' ? message : JSON.stringify(message));
    return { socket, request, next, say };
  }

  stop() {
    this.server.clients.forEach((client) => client.terminate());
    this.server.close();
  }
}

const event = (service, kind) => new Promise((resolve) => service.on(kind, resolve));

async function scene(run, options) {
  const router = await Router.start();
  const accepted = router.accept();
  const service = connect(router.url, DEFINITION, { backoff: { first: 1, longest: 20 }, ...options });
  try {
    await run(service, await accepted, router);
  } finally {
    service.close();
    router.stop();
  }
}

test('says who it is and passes on what it is told', () =>
  scene(async (service, router) => {
    assert.deepEqual(await router.next(), DEFINITION);
    assert.equal(router.request.url, '/v1/connect');
    assert.equal(router.request.headers.authorization, 'Bearer secret');
    const required = event(service, 'required');
    const lost = event(service, 'lost');
    const error = event(service, 'error');
    router.say('no JSON');
    router.say({ type: 'from-the-future' });
    router.say({ type: 'required-service', payload: EXPLOSION });
    router.say({ type: 'required-service-lost', payload: { name: 'explosion-service' } });
    router.say({ type: 'error', payload: { code: 'invalid', reason: 'a port is a number' } });
    assert.deepEqual(await required, EXPLOSION);
    assert.deepEqual(await lost, { name: 'explosion-service' });
    assert.equal((await error).code, 'invalid');
  }, { token: 'secret' }));

test('changes what it needs', () =>
  scene(async (service, router) => {
    await router.next();
    service.require('killer-robot', 'explosion-service');
    assert.deepEqual((await router.next()).requires, ['explosion-service', 'killer-robot']);
    service.release('explosion-service');
    assert.deepEqual(await router.next(), { ...DEFINITION, requires: ['killer-robot'] });
  }));

test('comes back and says what it saw last', () =>
  scene(async (service, first, server) => {
    await first.next();
    first.say({ type: 'required-service', payload: EXPLOSION, revision: 7 });
    await event(service, 'required');
    first.say({ type: 'required-service-lost', payload: { name: 'explosion-service', revision: 9 } });
    await event(service, 'lost');
    service.require('killer-robot');
    const again = server.accept();
    first.socket.terminate();
    const second = await again;
    const definition = await second.next();
    assert.equal(definition.since, 9);
    assert.deepEqual(definition.requires, ['explosion-service', 'killer-robot']);
    service.define({ weight: 2 });
    assert.equal((await second.next()).since, undefined);
  }));

test('keeps the highest revision, and says of what it knows nothing', () =>
  scene(async (service, first, server) => {
    await first.next();
    first.say({ type: 'required-service', payload: { ...EXPLOSION, revision: 9 } });
    first.say({ type: 'from-the-future', payload: { revision: 7 } });
    await event(service, 'message');
    service.require('killer-robot');
    await first.next();
    const again = server.accept();
    first.socket.terminate();
    const second = await again;
    const definition = await second.next();
    assert.deepEqual([definition.since, definition.anew], [9, ['killer-robot']]);
    const told = event(service, 'lost');
    second.say({ type: 'required-service-lost', payload: { name: 'killer-robot', revision: 8 } });
    await told;
    const last = server.accept();
    second.socket.terminate();
    const third = await last;
    assert.deepEqual(await third.next(), { ...DEFINITION, requires: ['explosion-service', 'killer-robot'], since: 9 });
    const other = event(service, 'lost');
    third.say({ type: 'required-service-lost', payload: { name: 'killer-robot', revision: 0 } });
    await other;
    assert.equal(service.since, 0, 'of another table');
  }));

const deregistered = (cause) => ({ type: 'error', payload: { code: 'deregistered', reason: 'it went', ...(cause && { cause }) } });

test('registers again when nobody meant it to go', () =>
  scene(async (service, router) => {
    await router.next();
    for (let round = 0; round < 3; round++) {
      const told = event(service, 'error');
      router.say(deregistered());
      assert.equal((await told).code, 'deregistered');
      assert.deepEqual(await router.next(), DEFINITION);
    }
    // What was meant stays so: the next that is heard is what this test makes it say.
    for (const cause of ['removed', 'replaced']) {
      const told = event(service, 'error');
      router.say(deregistered(cause));
      assert.equal((await told).cause, cause);
    }
    await new Promise((resolve) => setTimeout(resolve, 60));
    service.define({ weight: 2 });
    assert.deepEqual(await router.next(), { ...DEFINITION, weight: 2 });
    const drained = service.drain();
    assert.deepEqual(await router.next(), { type: 'drain' });
    router.say(deregistered());
    assert.deepEqual(await router.next(), { type: 'drain' }, 'one that leaves does not come back');
    router.say({ type: 'error', payload: { code: 'undefined', reason: 'there is no server to drain' } });
    await drained;
  }));

test('goes to the next router', async () => {
  const [gone, there] = [await Router.start(), await Router.start()];
  gone.stop();
  const accepted = there.accept();
  const service = connect([gone.url, there.url], DEFINITION, { backoff: { first: 1 } });
  assert.deepEqual(await (await accepted).next(), DEFINITION);
  service.close();
  there.stop();
});

test('drains, over a lost connection too', () =>
  scene(async (service, first, server) => {
    await first.next();
    const drained = service.drain();
    assert.deepEqual(await first.next(), { type: 'drain' });
    const again = server.accept();
    first.socket.terminate();
    const second = await again;
    await second.next();
    assert.deepEqual(await second.next(), { type: 'drain' });
    second.say({ type: 'drained' });
    await drained;
  }));

test('is drained where nothing is registered', () =>
  scene(async (service, router) => {
    await router.next();
    const drained = service.drain();
    await router.next();
    router.say({ type: 'error', payload: { code: 'undefined', reason: 'there is no server to drain' } });
    await drained;
  }));

test('waits longer each time, at random', () => {
  const backoff = new Backoff({ first: 100, longest: 1000, random: () => 0.5 });
  assert.deepEqual([1, 2, 3, 4, 5, 6].map(() => backoff.next()), [50, 100, 200, 400, 500, 500]);
  backoff.reset();
  assert.equal(backoff.next(), 50);
});

test('offers its token as a subprotocol where the platform has a WebSocket of its own', async () => {
  const platform = globalThis.WebSocket;
  globalThis.WebSocket = WebSocket;
  try {
    await scene(
      async (service, router) => {
        await router.next();
        const { authorization, 'sec-websocket-protocol': offered } = router.request.headers;
        assert.equal(authorization, undefined);
        assert.equal(offered, 'message-flow,message-flow.bearer.c8OkY3JldD8_Pw');
        assert.equal(router.socket.protocol, 'message-flow');
      },
      { token: 'säcret???', WebSocket },
    );
  } finally {
    globalThis.WebSocket = platform;
  }
});
