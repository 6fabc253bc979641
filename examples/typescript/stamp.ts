// A filter that gives each request an `x-request-id`, unless it brought one, and puts the same into
// its response.

import { get } from 'message-flow:plugin/config@0.1.0';
import { next } from 'message-flow:plugin/random@0.1.0';
import * as request from 'message-flow:plugin/request@0.1.0';
import type { RequestFilter } from 'message-flow:plugin/request-filter@0.1.0';
import * as response from 'message-flow:plugin/response@0.1.0';
import type { ResponseFilter } from 'message-flow:plugin/response-filter@0.1.0';

const name = (): string => get('header') ?? 'x-request-id';

// An id that a client brings goes into every log, so it has to look like one.
const isId = (text: string | null): boolean => /^[!-~]{1,128}$/.test(text ?? '');

const freshId = (): string => BigInt(next()).toString(16).padStart(16, '0').slice(-16);

export const requestFilter: RequestFilter = {
  onRequest() {
    if (!isId(request.header(name()))) request.setHeader(name(), freshId());
    return { tag: 'forward' };
  },
};

export const responseFilter: ResponseFilter = {
  onResponse() {
    const id = request.header(name());
    if (id) response.setHeader(name(), id);
  },
};
