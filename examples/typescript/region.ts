// A registrar that keeps clients in their region: among the servers of the client's region, else
// among all, the one with the least to do. Between equals each client has its own favourite.

import { leastLoaded } from 'message-flow:plugin/candidates@0.1.0';
import { get } from 'message-flow:plugin/config@0.1.0';
import type { Decision, Registrar } from 'message-flow:plugin/registrar@0.1.0';
import { header } from 'message-flow:plugin/request@0.1.0';

// What is configured stays for as long as an instance lives: it is asked for once.
let name: string | undefined;

export const registrar: Registrar = {
  resolve(): Decision {
    name ??= get('header') ?? 'region';
    const region = header(name);
    const near = region && leastLoaded([['region', region]]);
    const chosen = near || leastLoaded([]);
    return chosen ? { tag: 'server', val: chosen } : { tag: 'pass' };
  },
};
