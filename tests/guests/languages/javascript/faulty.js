// A filter that fails in the way that the header `fault` names.

import { header, setHeader } from 'message-flow:plugin/request@0.1.0';

export const requestFilter = {
  onRequest() {
    switch (header('fault')) {
      case 'throw':
        throw new Error('told to throw');
      case 'error':
        throw 'told to err';
      case 'loop':
        for (;;);
      case 'allocate':
        for (const hoard = []; ; ) hoard.push(new Uint8Array(1 << 20).fill(1));
      case 'recurse':
        return recurse(1);
      case 'nonsense':
        return { tag: 'nonsense' };
    }
    setHeader('faulty', 'fine');
    return { tag: 'forward' };
  },
};

function recurse(depth) {
  return recurse(depth + 1) + depth;
}
