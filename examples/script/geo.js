/// <reference path="../../sdk/script/message-flow.d.ts" />

// A registrar and a filter in one script. Clients that say where they are get a server there, the
// one with the least to do; whoever asks too often in a minute gets 429.

const PER_MINUTE = Number(config.get("per_minute") ?? 600);

export function resolve() {
  const region = request.header("region");
  return candidates.leastLoaded({ region }) ?? candidates.leastLoaded();
}

export function onRequest() {
  const count = state.add(`requests/${request.client()}`, 1, 60_000);
  if (count > PER_MINUTE) {
    return { respond: { status: 429, reason: `at most ${PER_MINUTE} requests a minute` } };
  }
  request.setHeader("x-requests-left", String(PER_MINUTE - count));
}
