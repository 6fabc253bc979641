// What a plugin has that the bare language has not. It is loaded before the plugin's own module.

import { log } from 'message-flow:plugin/log@0.1.0';
import { next } from 'message-flow:plugin/random@0.1.0';

const shown = (value) => {
  if (typeof value === 'string') return value;
  if (value instanceof Error) return String(value);
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
};

const at = (level) => (...values) => log(level, values.map(shown).join(' '));

// Lines in the router's log.
globalThis.console = {
  trace: at('trace'),
  debug: at('debug'),
  log: at('info'),
  info: at('info'),
  warn: at('warn'),
  error: at('error'),
};

// A component is a snapshot of an engine that has run already, and its instances are copies: with the
// engine's own `Math.random` they would all draw the same numbers.
// 53 random bits, as many as a number holds.
Math.random = () => (Math.floor(next() / 2 ** 11) % 2 ** 53) / 2 ** 53;

// As browsers have them.
globalThis.crypto ??= {
  getRandomValues(array) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let at = 0; at < bytes.length; at += 4) {
      let bits = Math.floor(next() / 2 ** 32);
      for (let byte = at; byte < at + 4 && byte < bytes.length; byte++, bits >>>= 8) bytes[byte] = bits;
    }
    return array;
  },
  randomUUID() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  },
};
