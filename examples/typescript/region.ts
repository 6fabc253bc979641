// A registrar that keeps clients in their region: among the servers of the client's region, else
// among all, the one with the least to do. Between equals each client has its own favourite.

import { servers, type Server } from 'message-flow:plugin/candidates@0.1.0';
import { get } from 'message-flow:plugin/config@0.1.0';
import type { Decision, Registrar } from 'message-flow:plugin/registrar@0.1.0';
import { client, header } from 'message-flow:plugin/request@0.1.0';

export const registrar: Registrar = {
  resolve(): Decision {
    const region = header(get('header') ?? 'region');
    const all = servers().filter((server) => server.weight > 0);
    const near = region ? all.filter((server) => isIn(server, region)) : [];
    const chosen = leastLoaded(near.length > 0 ? near : all);
    return chosen ? { tag: 'server', val: chosen.id } : { tag: 'pass' };
  },
};

function isIn(server: Server, region: string): boolean {
  return server.metadata.some(([key, value]) => key === 'region' && value === region);
}

// Healthy ones first, then by messages under way for each unit of weight.
function leastLoaded(servers: Server[]): Server | undefined {
  let equals: Server[] = [];
  for (const server of servers) {
    const order = equals[0] ? compare(server, equals[0]) : -1;
    if (order < 0) equals = [server];
    else if (order === 0) equals.push(server);
  }
  return equals.length > 1 ? favourite(equals, client()) : equals[0];
}

function compare(one: Server, other: Server): number {
  if (one.healthy !== other.healthy) return one.healthy ? -1 : 1;
  return one.inFlight * other.weight - other.inFlight * one.weight;
}

// The same at every router: the highest hash of client and server (FNV-1a).
function favourite(servers: Server[], client: string): Server {
  const score = ({ id }: Server): number => {
    let hash = 0x811c9dc5;
    for (const letter of `${client} ${id}`) hash = Math.imul(hash ^ letter.codePointAt(0)!, 0x01000193) >>> 0;
    return Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 0;
  };
  return servers.reduce((best, server) => (score(server) > score(best) ? server : best));
}
