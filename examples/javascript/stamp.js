// A filter that gives each request an `x-request-id`, unless it brought one, and puts the same into
// its response.

import { get } from 'message-flow:plugin/config@0.1.0';
import { next } from 'message-flow:plugin/random@0.1.0';
import * as request from 'message-flow:plugin/request@0.1.0';
import * as response from 'message-flow:plugin/response@0.1.0';

const name = () => get('header') ?? 'x-request-id';

// An id that a client brings goes into every log, so it has to look like one.
const isId = (text) => /^[!-~]{1,128}$/.test(text ?? '');

const freshId = () => BigInt(next()).toString(16).padStart(16, '0').slice(-16);

export const requestFilter = {
  onRequest() {
    if (!isId(request.header(name()))) request.setHeader(name(), freshId());
    return { tag: 'forward' };
  },
};

export const responseFilter = {
  onResponse() {
    const id = request.header(name());
    if (id) response.setHeader(name(), id);
  },
};
