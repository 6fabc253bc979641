// A filter that draws a number and a token, looks at the time, and prints.

import { addHeader, setHeader } from 'message-flow:plugin/request@0.1.0';

const seenAtBuild = Date.now();

export const requestFilter = {
  onRequest() {
    addHeader('chance', String(Math.random()));
    addHeader('token', crypto.randomUUID());
    setHeader('time', String(Date.now()));
    console.log('it printed', Date.now() > seenAtBuild);
    console.error('it complained');
    return { tag: 'forward' };
  },
};
